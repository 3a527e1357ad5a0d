"""`jaxinf memorisation` on tables and archives: what is known by heart, resuming, and refusals."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jaxinf.applications.memorisation import influence_scores, memorisation_scores
from jaxinf.cli import memorisation_pairs
from jaxinf.cli.memorisation_choices import Estimate
from jaxinf.cli.memorisation_findings import _OF_ESTIMATE
from jaxinf.cli.memorisation_pair_findings import pairs_section, write_pairs
from jaxinf.cli.memorisation_pairs import Owed, Pairs, find_pairs
from jaxinf.cli.rows import Rows
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


def new_flowers():
    """New flowers under right labels, then the two odd rows again under their wrong ones."""
    new, old = flowers(10, seed=1), flowers()
    new["label"] = NAMES[np.arange(10) % 2]
    return {name: np.concatenate([new[name], old[name][ODD]]) for name in new}


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


SMALL = ("--epochs", 100, "--hidden", 32, "--models", 2, "--retrain", 30)


def test_test_examples_owed_to_one_training_example(run, tmp_path):
    train = write(tmp_path / "t.csv", flowers())
    test = write(tmp_path / "v.parquet", new_flowers())
    args = (train, "--drop", "id", *SMALL, "--store", tmp_path / "store", "--test", test)
    out, said = run(*args)
    table = pq.read_table(out / "pairs.parquet")
    found = {name: np.array(column) for name, column in table.to_pydict().items()}
    assert list(found) == [
        "train_index",
        "test_index",
        "influence",
        "standard_error",
        "memorisation",
        "train_label",
        "test_label",
    ]
    # the copies of the odd rows, which are right where the odd rows were trained on
    pairs = list(zip(found["train_index"].tolist(), found["test_index"].tolist(), strict=True))
    assert {(4, 10), (9, 11)} <= set(pairs[:2])
    scores = pq.read_table(out / "scores.parquet")["memorisation"].to_numpy()
    np.testing.assert_array_equal(found["memorisation"], scores[found["train_index"]])
    np.testing.assert_allclose(found["influence"][:2], found["memorisation"][:2], atol=0.1)
    assert (np.diff(found["influence"]) <= 0).all()
    assert (found["influence"] >= 0.15).all()
    assert (found["influence"] > 4 * found["standard_error"]).all()
    assert found["train_label"].tolist() == flowers()["label"][found["train_index"]].tolist()
    assert found["test_label"].tolist() == new_flowers()["label"][found["test_index"]].tolist()
    assert f"{len(pairs)} pairs count (influence 0.15 or more" in said
    assert "pairs.parquet" in said.splitlines()[-1]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "right because of one training example?" in page
    strongest = page.split("The strongest pairs")[1].split("</table>")[0]
    assert strongest.count(">training<") == strongest.count(">test<") == min(len(pairs), 12)
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("chunk_*")}
    out, _ = run(*args, "--no-report")
    assert pq.read_table(out / "pairs.parquet").equals(table)
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    # without test examples, the same store serves another run
    run(*args[:-2], "--no-report")


def test_no_pair_is_an_empty_table(run, tmp_path):
    # all labels right: nothing has to be learnt by heart
    train = write(tmp_path / "t.csv", flowers() | {"label": NAMES[np.arange(40) % 2]})
    test = write(tmp_path / "v.csv", {k: v[:10] for k, v in new_flowers().items()})
    out, said = run(train, "--drop", "id", "--test", test, *SMALL)
    table = pq.read_table(out / "pairs.parquet")
    assert table.num_rows == 0
    assert table.schema.field("train_index").type == pa.int64()
    assert table.schema.field("influence").type == pa.float64()
    assert table.schema.field("test_label").type == pa.string()
    assert "No pair of a training and a test example counts" in said
    assert "No pair of a training" in (out / "report.html").read_text(encoding="utf-8")


def test_pairs_of_pictures_in_one_archive(run, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(32) % 2
    x = np.where(y[:, None, None, None] == 1, 180, 60) + rng.integers(-20, 20, (32, 5, 5, 1))
    x, given = x.astype(np.uint8), y.copy()
    given[ODD] = 1 - given[ODD]
    # a kind of its own, and a test example of that kind
    x[0], given[0] = np.where(np.eye(5)[..., None] > 0, 255, 0), 1
    file = tmp_path / "d.npz"
    np.savez(file, x_train=x, y_train=given, x_test=x[[20, 21, 0]], y_test=given[[20, 21, 0]])
    args = (file, "--test", file, "--epochs", 120, "--models", 2, "--retrain", 30)
    out, _ = run(*args)
    found = pq.read_table(out / "pairs.parquet").to_pydict()
    assert (found["train_index"][0], found["test_index"][0]) == (0, 2)
    assert found["train_label"][0] == found["test_label"][0] == 1
    page = (out / "report.html").read_text(encoding="utf-8")
    section = page.split("right because of one training example?")[-1].split("<h2")[0]
    strip = section.split('class="strip"')[1]
    assert strip.count("data:image/png") == 2
    assert strip.index("test row 2") < strip.index("training row 0")


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_pairs_are_those_beyond_every_threshold(monkeypatch, at_once):
    rng = np.random.default_rng(0)
    subsets = draw_subsets(40, 12, fraction=0.7, seed=0)
    subsets[:, 5] = True  # nothing can be said of it
    seen = rng.integers(12, size=30)
    # each test example hangs on one training example, more or less
    right = np.where(rng.random((40, 30)) < rng.random(30), subsets[:, seen], True)
    memorised = memorisation_scores(subsets, subsets & (rng.random((40, 12)) < np.arange(12) / 12))
    monkeypatch.setattr(memorisation_pairs, "_AT_ONCE", at_once)
    found = find_pairs(subsets, memorised, right)
    whole = influence_scores(subsets, right)
    counts = (whole.scores >= 0.15) & (whole.scores > 4 * whole.standard_errors)
    counts &= memorised.scores >= 0.25
    assert 5 < counts.sum() < counts.size / 2
    assert set(zip(found.test, found.train, strict=True)) == set(
        zip(*np.nonzero(counts), strict=True)
    )
    np.testing.assert_array_equal(found.influence, -np.sort(-whole.scores[counts]))
    np.testing.assert_allclose(found.standard_error, whole.standard_errors[found.test, found.train])
    np.testing.assert_array_equal(found.memorisation, memorised.scores[found.train])


@pytest.mark.parametrize("count", [0, 1])
def test_pairs_of_image_files_are_named(tmp_path, count):
    pictures, labels = np.zeros((2, 4, 4, 3), np.uint8), np.array(["cat", "dog"])
    train = Rows("a", labels, inputs=pictures, files=("cat/1.png", "dog/2.png"))
    test = Rows("b", labels, inputs=pictures, files=("cat/8.png", "dog/9.png"))
    figures = np.array([0.5])[:count]
    pairs = Pairs(np.array([0])[:count], np.array([1])[:count], figures, figures, figures)
    owed = Owed(test, pairs, 0, 0.5)
    table = pq.read_table(write_pairs(tmp_path, train, owed)).to_pydict()
    assert (table["train_file"], table["test_file"]) == (
        ["cat/1.png"][:count],
        ["dog/9.png"][:count],
    )
    section = pairs_section(train, owed)
    assert len(section.strips) == count
    if count:
        assert section.strips[0].query is not None
        assert section.strips[0].query.lines[2] == "test 9.png"
        assert section.strips[0].groups[0][1][0].lines[2] == "training 1.png"


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


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        ({}, (), "--test needs --retrain"),
        ({"label": np.array(["oak"] * 12)}, ("--retrain", 4), "training set lacks: oak"),
        ({"label": np.arange(12) % 2}, ("--retrain", 4), "labels are text in"),
        ({"petal": np.full(12, np.nan)}, ("--retrain", 4), "NaN"),
        ({"petal": np.array(["wide"] * 12)}, ("--retrain", 4), "text in one file"),
        ({"petal": None}, ("--retrain", 4), "has no 'petal'"),
        ({}, ("--retrain", 4, "--test-labels", "y.npy"), "brings its own labels"),
    ],
)
def test_refusals_of_test_examples(refused, tmp_path, change, args, message):
    train = write(tmp_path / "t.csv", flowers())
    columns = {k: v for k, v in (new_flowers() | change).items() if v is not None}
    test = write(tmp_path / "v.parquet", columns)
    args = (train, "--test", test, *args, "--out", tmp_path / "out", "--no-progress")
    assert message in refused("memorisation", *args)
    assert not (tmp_path / "out").exists()


def test_test_examples_that_are_empty_or_of_another_shape_or_the_training_set(refused, tmp_path):
    args = ("--retrain", 4, "--out", tmp_path / "out", "--no-progress")
    train = write(tmp_path / "t.csv", flowers())
    (tmp_path / "v.csv").write_text("petal,leaf,soil,stem,root,sun,label\n")
    (tmp_path / "folder").mkdir()
    for test, message in (
        (tmp_path / "v.csv", "has no rows"),
        (tmp_path / "absent.csv", "no such file"),
        (tmp_path / "folder", "folder"),
        (train, "is the training set itself"),
    ):
        assert message in refused("memorisation", train, "--test", test, *args)
    said = refused("memorisation", train, "--test-labels", train, *args)
    assert "--test, which is not given" in said
    x, y = np.random.default_rng(0).normal(size=(8, 3)).astype("f4"), np.arange(8) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:, :2], y_test=y)
    np.savez(tmp_path / "none.npz", x_test=x[:0], y_test=y[:0])
    np.savez(tmp_path / "alone.npz", x_train=x, y_train=y)
    np.save(tmp_path / "x.npy", x)
    for test, message in (
        ("d.npz", "have shape (3,)"),
        ("none.npz", "has no rows"),
        ("alone.npz", "is known for inputs"),
        ("x.npy", "--test-labels"),
    ):
        said = refused("memorisation", tmp_path / "d.npz", "--test", tmp_path / test, *args)
        assert message in said
    said = refused("memorisation", train, "--test", tmp_path / "d.npz", *args)
    assert "of different kinds" in said
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
