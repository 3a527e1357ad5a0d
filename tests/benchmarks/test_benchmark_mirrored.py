import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.mirrored_groups import (
    KINDS,
    agreement,
    influences,
    make_experiment,
    subsets_of,
)
from benchmarks.mirrored_plot import panels, plot
from benchmarks.tables_mirrored import mirrored_hypothesis_table, retraining_table


def experiment(num_groups=6, group_size=10):
    rng = np.random.default_rng(0)
    part = lambda n: {
        "x": rng.normal(size=(n, 4)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }
    train = part(150)
    return train, make_experiment(train, part(20), num_groups, group_size, seed=1)


def test_wrong_labels_sweep_from_none_to_all():
    train, made = experiment()
    shares = {kind: made.wrong[made.groups[kind]].mean(axis=1) for kind in KINDS}
    np.testing.assert_allclose(shares["swept"], np.linspace(0, 1, 6), atol=0.051)
    assert not shares["clean"].any()
    assert set(made.groups["shuffled"].ravel()) == set(made.groups["swept"].ravel())
    np.testing.assert_array_equal(made.data["y"][:150] != train["y"], made.wrong)


def test_groups_are_left_out_and_the_test_set_joins():
    _, made = experiment()
    subsets = subsets_of(made, KINDS)
    assert subsets.shape == (2 + 3 * 6, 170)
    np.testing.assert_array_equal(subsets[:2].sum(axis=1), [150, 170])
    assert not subsets[2 + 6 + 4][made.groups["shuffled"][4]].any()
    assert (subsets[2:].sum(axis=1) == 140).all()


def test_influences_are_differences_of_mean_losses():
    _, made = experiment()
    losses = np.random.default_rng(2).random((20, 170))
    truth, mirror = influences(losses, made, KINDS)["shuffled"]
    assert truth[1] == pytest.approx(losses[9, 150:].mean() - losses[0, 150:].mean())
    rows = made.groups["shuffled"][1]
    assert mirror[1] == pytest.approx(losses[0, rows].mean() - losses[1, rows].mean())


def test_agreement_beyond_the_share():
    rng = np.random.default_rng(3)
    share = np.linspace(0, 1, 30)
    truth, mirror = (share + 0.05 * rng.normal(size=(4, 30)) for _ in range(2))
    found = agreement(truth, mirror, share)
    assert found["spearman"] > 0.95
    assert found["halves"] > 0.9
    # both follow the share and nothing else
    assert abs(found["given_share"]) < 0.6
    assert "given_share" not in agreement(truth, mirror, 0 * share)


@pytest.mark.slow
def test_mirrored_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.mirrored_hypothesis", "--quick"]
    options = ["--output", str(tmp_path), "--plots", str(tmp_path)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=600)
    results = json.loads((tmp_path / "mirrored_hypothesis.json").read_text())["results"]
    first = results["convex"][0]
    assert first["largest_gradient_norm"] <= 1e-10
    assert min(first["pearson"]) > 0.9
    rows = {(row["model"], row["kind"]) for row in results["groups"]}
    assert rows == {(model, kind) for model in ("mlp", "cnn") for kind in KINDS}
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_run_that_is_resumed_keeps_what_it_has(tmp_path):
    kept = {"set": "digits", "weight_decay": 0.01, "draw": 0, "spearman": [0.5, 0.6]}
    groups = {"set": "digits", "model": "mlp", "kind": "swept", "spearman": 0.5}
    document = {"results": {"convex": [kept], "groups": [groups]}}
    (tmp_path / "mirrored_hypothesis.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "benchmarks.mirrored_hypothesis", "--sets", "digits"]
    options = ["--weight-decays", "0.01", "--models", "mlp", "--resume", "--output", str(tmp_path)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=60)
    assert json.loads((tmp_path / "mirrored_hypothesis.json").read_text()) == document


def test_the_tables_say_what_was_found():
    convex = {
        "set": "mnist",
        "weight_decay": 0.01,
        "draw": 0,
        "train": 4900,
        "left_out": 100,
        "pearson": [0.99, 0.98],
        "spearman": [0.7, 0.9],
        "truth_per_mirror": [1.5, 1.25],
        "seconds": {"ratio_for_all": 63.2},
        "released_code": {"pearson": [0.9966, 0.9986], "spearman": [0.855, 0.941]},
    }
    groups = {
        "set": "mnist",
        "model": "cnn",
        "epochs": 8,
        "train": 6000,
        "group_size": 100,
        "kind": "shuffled",
        "seeds": 5,
        "pearson": 0.5,
        "spearman": 0.25,
        "spearman_interval": [-0.1, 0.6],
        "wrong_share": [0.5] * 30,
        "halves": 0.75,
        "released_code": {"pearson": 0.9864, "spearman": 0.9915},
    }
    page = mirrored_hypothesis_table({"results": {"convex": [convex], "groups": [groups]}})
    assert "| 0.9800 to 0.9900 | 0.700 to 0.900 | 0.9966 to 0.9986, 0.855 to 0.941 |" in page
    assert "| 63× (from 100) |" in page
    assert (
        "| 30 of 100, the same examples at random | 5 | 0.500 | 0.250 (-0.100 to 0.600) |" in page
    )
    assert "0.9864" not in page  # its groups are swept
    swept = mirrored_hypothesis_table(
        {"results": {"convex": [convex], "groups": [groups | {"kind": "swept"}]}}
    )
    assert "| 0.750 | 0.9864, 0.9915 |" in swept
    assert "draws of the" not in page
    other = convex | {"draw": 1, "pearson": [0.97, 0.995]}
    page = mirrored_hypothesis_table({"results": {"convex": [convex, other], "groups": []}})
    assert "2 draws of the training points (100, 100 left out), Pearson: 0.9800 to 0.9900; " in page
    assert page.count("| MNIST |") == 1
    rates = {("loop", None): 2.0, ("compiled", None): 4.0, ("vmap", 8): 40.0}
    contenders = [
        {"contender": name, "median": rate} | ({} if width is None else {"at_once": width})
        for (name, width), rate in rates.items()
    ]
    row = {"problem": "net", "train": 100, "epochs": 2, "batch": 5, "contenders": contenders}
    row |= {"vmap_per_loop": 20.0, "vmap_per_compiled": 10.0}
    assert "batch 5 | 2 | 4 | 40 | 20.0 | 10.0 |" in retraining_table(
        {"results": [row], "settings": {}}
    )


@pytest.mark.slow
def test_retraining_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.retraining", "--quick"]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, check=True, timeout=600)
    document = json.loads((tmp_path / "retraining.json").read_text())
    assert document["settings"]["mirror"]["ratio"] > 1
    assert document["results"][0]["vmap_per_loop"] > 1


def test_the_figure_has_a_panel_for_every_kind(tmp_path):
    groups = {"set": "mnist", "model": "cnn", "mirror": [[1.0, 2.0], [3.0, 4.0]]}
    groups |= {"truth": [[0.0, 1.0], [2.0, 3.0]]}
    results = {
        "convex": [{"set": "mnist", "worst_query": {"mirror": [1.0, 2.0], "truth": [2.0, 1.0]}}],
        "groups": [groups | {"kind": kind} for kind in ("swept", "shuffled", "clean")],
    }
    found = panels(results, "mnist")
    assert [title.split(", ")[1] for title in found] == ["logistic regression", "CNN", "CNN"]
    mirror, truth = found["MNIST, CNN, the same, at random"]
    # means over the seeds
    np.testing.assert_array_equal(mirror, [2.0, 3.0])
    np.testing.assert_array_equal(truth, [1.0, 2.0])
    assert panels(results, "fashion_mnist") == {}
    plot(tmp_path / "mirror.svg", results)
    assert (tmp_path / "mirror.svg").read_text().count("retrained without") == 1
