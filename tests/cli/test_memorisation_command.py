"""`jaxinf memorisation` on tables and archives: what is known by heart, resuming, and refusals."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jaxinf.cli.memorisation_choices import Estimate
from jaxinf.cli.memorisation_findings import _OF_ESTIMATE
from jaxinf.influence.ground_truth import draw_subsets

NAMES = np.array(["iris", "rose"])
ODD = [4, 9]


def flowers(count=40, seed=0):
    """Two kinds far apart; the labels of the odd rows are wrong, and must be learnt by heart."""
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 2
    given = kind.copy()
    given[ODD] = 1 - given[ODD]
    where = 6.0 * kind - 3
    return {
        "id": np.arange(count),
        "petal": where + rng.normal(size=count),
        **{name: rng.normal(size=count) for name in ("leaf", "soil", "stem", "root", "sun")},
        "label": NAMES[given],
    }


def write(path, columns):
    table = pa.table({name: pa.array(column.tolist()) for name, column in columns.items()})
    (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


@pytest.fixture
def run(call, tmp_path):
    def run(*args: object):
        result = call("memorisation", *args, "--out", tmp_path / "out", "--no-progress")
        assert result.exit_code == 0, result.output
        return tmp_path / "out", result.stdout

    return run


def test_wrong_labels_are_known_by_heart_and_a_run_resumes(run, tmp_path):
    file = write(tmp_path / "t.csv", flowers())
    args = (file, "--drop", "id", "--epochs", 100, "--hidden", 32, "--models", 2)
    args += ("--retrain", 30, "--store", tmp_path / "store")
    out, said = run(*args)
    table = pq.read_table(out / "scores.parquet")
    found = {name: np.array(column) for name, column in table.to_pydict().items()}
    assert found["row"].tolist() == list(range(40))
    assert found["label"].tolist() == flowers()["label"].tolist()
    assert sorted(found["rank"]) == list(range(1, 41))
    # the two wrong labels, by retraining and by the estimate
    assert set(np.argsort(-found["memorisation"])[:2]) == set(ODD)
    assert set(np.argsort(-found["estimate"])[:2]) == set(ODD)
    assert found["memorisation"][ODD].min() > 0.6
    assert np.median(found["memorisation"]) < 0.1
    np.testing.assert_allclose(
        found["memorisation"], found["right_when_seen"] - found["right_when_left_out"]
    )
    assert found["rank"][ODD].max() == 2
    seen = draw_subsets(30, 40, fraction=0.7, seed=0).sum(axis=0)
    assert found["models_seen"].tolist() == seen.tolist()
    assert found["models_left_out"].tolist() == (30 - seen).tolist()
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("known by heart", ">petal<", "left-out (2 models) against 30", "Spearman 0."):
        assert text in page
    assert ">id<" not in page
    assert "memorisation score of 0.25 or more" in said
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("chunk_*")}
    assert len(trained) >= 2
    out, _ = run(*args, "--no-report")
    assert pq.read_table(out / "scores.parquet").equals(table)
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


@pytest.mark.slow
@pytest.mark.parametrize(("estimate", "epochs"), [("early-loss", 600), ("seen-less-left-out", 120)])
def test_pictures_by_an_estimate_alone(run, tmp_path, estimate, epochs):
    rng = np.random.default_rng(0)
    y = np.arange(32) % 2
    x = np.where(y[:, None, None, None] == 1, 180, 60) + rng.integers(-20, 20, (32, 5, 5, 1))
    given = y.copy()
    given[ODD] = 1 - given[ODD]
    file = tmp_path / "d.npz"
    np.savez(file, x_train=x.astype(np.uint8), y_train=given)
    out, said = run(file, "--estimate", estimate, "--epochs", epochs, "--models", 6)
    found = pq.read_table(out / "scores.parquet").to_pydict()
    assert set(np.argsort(found["rank"])[:2]) == set(ODD)
    assert "memorisation" not in found
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" in page
    assert "agree with retraining" not in page
    assert "only the order means something" in said


def test_every_estimate_is_explained():
    assert set(_OF_ESTIMATE) == {each.value for each in Estimate}


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        ({"label": np.array(["a"] * 40)}, (), "all rows are of class a"),
        ({"petal": np.full(40, np.nan)}, (), "NaN"),
        ({}, ("--label", "absent"), "has no 'absent'"),
        ({}, ("--models", "3"), "--models is 3"),
        ({}, ("--models", "0"), "--models is 0"),
        ({}, ("--epochs", "0"), "--epochs is 0"),
        ({}, ("--hidden", "0"), "--hidden is 0"),
        ({}, ("--retrain", "2"), "--retrain is 2"),
        ({}, ("--retrain", "8", "--fraction", "1"), "fraction is 1.0"),
    ],
)
def test_refusals(refused, tmp_path, change, args, message):
    file = write(tmp_path / "t.parquet", flowers() | change)
    said = refused("memorisation", file, *args, "--out", tmp_path / "out", "--no-progress")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_sets_that_are_empty_or_too_small_or_without_labels(refused, tmp_path):
    args = ("--out", tmp_path / "out", "--no-progress")
    (tmp_path / "empty.csv").write_text("petal,label\n")
    assert "has no rows" in refused("memorisation", tmp_path / "empty.csv", *args)
    (tmp_path / "small.csv").write_text("petal,label\n1,a\n2,b\n")
    assert "has 2 rows" in refused("memorisation", tmp_path / "small.csv", *args)
    (tmp_path / "bare.csv").write_text("petal,leaf\n1,2\n2,1\n")
    assert "labels" in refused("memorisation", tmp_path / "bare.csv", *args)
    np.save(tmp_path / "x.npy", np.zeros((8, 2), np.float32))
    assert "--train-labels" in refused("memorisation", tmp_path / "x.npy", *args)
