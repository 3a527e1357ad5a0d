"""`jaxinf demo`, small: the planted faults are real, the figures are checked, the files written."""

import json

import numpy as np
import pytest

from jaxinf.cli.demonstration import CONTENDERS, Settings, train_subject
from jaxinf.cli.demonstration.contenders import NEIGHBOURS
from jaxinf.cli.demonstration.labels import disagreement, training_losses
from jaxinf.datasets import load_digits
from jaxinf.evaluation import detection_auc, hit_rate

SMALL = Settings(seed=3, epochs=2, num_leaked=6, num_train=256)


@pytest.fixture(scope="module")
def subject():
    return train_subject(SMALL, progress=False)


def test_leaked_examples_are_copies_of_their_sources_labels_included(subject):
    assert subject.source.shape == (6,)
    np.testing.assert_array_equal(subject.leaked["x"], subject.train["x"][subject.source])
    np.testing.assert_array_equal(subject.leaked["y"], subject.train["y"][subject.source])


def test_wrong_labels_are_wrong_and_counted(subject):
    np.testing.assert_array_equal(subject.is_wrong, subject.train["y"] != subject.true_labels)
    assert subject.is_wrong.sum() == round(0.1 * 256)


def test_leaks_and_wrong_labels_are_drawn_apart():
    subject = train_subject(Settings(epochs=1, num_leaked=64, num_train=640), progress=False)
    both = subject.is_wrong[subject.source].sum()
    assert both < 20  # 6.4 expected; drawn from one seed, all 64 would be


def test_held_out_halves_are_clean_and_disjoint(subject):
    trusted, ordinary, train = (
        {row.tobytes() for row in part["x"]}
        for part in (subject.trusted, subject.ordinary, subject.train)
    )
    assert not trusted & ordinary
    assert not trusted & train
    assert len(trusted) + len(ordinary) == len(load_digits()[1]["y"])


def test_training_loss_and_neighbours_find_wrong_labels(subject):
    assert detection_auc(training_losses(subject), subject.is_wrong) > 0.8
    assert detection_auc(disagreement(subject, NEIGHBOURS[0]), subject.is_wrong) > 0.9


@pytest.mark.parametrize(
    "contender",
    [
        # the others compile for as long, and differ in a name that test_methods covers
        c if c.name in ("grad-cos", "released") else pytest.param(c, marks=pytest.mark.slow)
        for c in CONTENDERS
    ],
    ids=lambda c: c.name,
)
def test_every_contender_scores_every_training_example(subject, contender):
    queries = {key: value[:2] for key, value in subject.leaked.items()}
    scores = contender.score(subject, queries)
    assert scores.shape == (2, 256)
    assert np.isfinite(scores).all()
    assert contender.signed == bool((scores < 0).any())
    if contender.name == "grad-cos":
        assert hit_rate(scores, subject.source[:2], 1) == 1


def test_demo_writes_report_scores_and_results(call, tmp_path):
    out = tmp_path / "demo"
    result = call(
        "demo",
        "--out",
        out,
        "--seed",
        1,
        "--epochs",
        2,
        "--leaked",
        5,
        "--train-size",
        256,
        "--method",
        "grad-cos",
        "--no-progress",
    )
    assert result.exit_code == 0, result.output
    results = json.loads((out / "results.json").read_text())
    assert {"subject", "leaks", "wrong_labels", "provenance"} <= set(results)
    assert results["leaks"]["grad-cos"] == {"top_1": 1.0, "top_5": 1.0}
    assert results["leaks"]["pixel-neighbour"]["top_1"] == 1.0
    assert "released" not in results["leaks"]
    assert results["provenance"]["seed"] == "1"
    with np.load(out / "scores.npz") as saved:
        scores, source = saved["leaks/grad-cos"], saved["leaks/source"]
        assert hit_rate(scores, source, 1) == 1
        wrong = saved["wrong_labels/is_wrong"]
        auc = detection_auc(-saved["wrong_labels/grad-cos"], wrong)
        assert auc == results["wrong_labels"]["gradient cosine"]["auc"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for heading in ("What was done", "leaked from training?", "labels are wrong?", "What it cost"):
        assert heading in page
    assert "training loss" in result.stdout


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--epochs", "0"), "--epochs is 0"),
        (("--train-size", "63"), "--train-size is 63"),
        (("--train-size", "2000"), "--train-size is 2000"),
        (("--leaked", "0"), "--leaked is 0"),
        (("--leaked", "1438"), "--leaked is 1438"),
        (("--noise", "0"), "--noise is 0"),
        (("--noise", "1.5"), "--noise is 1.5"),
        (("--seed", "-1"), "--seed is -1"),
        (("--method", "magic"), "--method magic is unknown"),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(refused, tmp_path, args, reason):
    assert reason in refused("demo", "--out", tmp_path / "out", *args)
