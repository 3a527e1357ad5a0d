"""`jaxinf value` on every kind of file: the library's numbers, aligned rows, clear refusals."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxinf.cli.features import Sets
from jaxinf.cli.rows import Rows
from jaxinf.cli.valuators import Valued
from jaxinf.cli.valued import certificate_section, values_section
from jaxinf.datasets import load_digits, symmetric_label_noise
from jaxinf.evaluation import detection_auc
from jaxinf.valuation import lava
from jaxinf.valuation.columns import one_hot, raw_features, standardise
from jaxinf.valuation.knn_shapley import knn_shapley

NAMES = np.array(["iris", "rose", "tulip"])


def flowers(count, seed):
    """Three kinds, told apart by small numbers beside a useless large one."""
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 3
    return {
        "id": np.arange(count),
        "petal": kind * 3 + rng.normal(size=count),
        "area": 1e6 * rng.normal(size=count),
        "flat": np.full(count, 7),
        "colour": np.array(["red", "blue"])[rng.integers(0, 2, count)],
        "label": NAMES[kind],
    }


@pytest.fixture
def tables(tmp_path):
    train, valid = flowers(60, 0), flowers(30, 1)
    wrong = np.arange(60) % 10 == 0
    train["label"] = np.where(wrong, np.roll(train["label"], 1), train["label"])
    train["faulty"] = wrong
    return train, valid


def write(path, columns):
    table = pa.table({name: pa.array(column.tolist()) for name, column in columns.items()})
    writer = pa.csv.write_csv if path.suffix == ".csv" else pq.write_table
    writer(table, path)
    return path


def expected(train, valid):
    """What the command should compute from the tables: the id dropped, the rest standardised."""
    stack = lambda side: np.stack([side[name] for name in ("petal", "area", "flat")], axis=1)
    scaled = standardise(stack(train), stack(valid))
    colours = one_hot(train["colour"], valid["colour"])
    features = [
        np.concatenate([numbers, extra], axis=1)
        for numbers, extra in ((scaled.train, colours.train), (scaled.valid, colours.valid))
    ]
    labels = [np.searchsorted(NAMES, side["label"]) for side in (train, valid)]
    return np.asarray(knn_shapley(features[0], labels[0], features[1], labels[1]).values)


@pytest.fixture
def run(call, tmp_path):
    def run(*args: object):
        out = tmp_path / "out"
        result = call("value", *args, "--out", out, "--no-progress")
        assert result.exit_code == 0, result.output
        return out, result.stdout

    return run


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_are_standardised_and_rows_stay_aligned(run, tables, tmp_path, suffix):
    train, valid = tables
    files = write(tmp_path / f"t{suffix}", train), write(tmp_path / f"v{suffix}", valid)
    out, said = run(
        *files, "--drop", "id", "--truth", "faulty", "--method", "knn-shapley", "--keep", 0.75
    )
    found = pq.read_table(out / "values.parquet").to_pydict()
    want = expected(train, valid)
    np.testing.assert_allclose(found["value"], want, atol=1e-6)
    assert found["row"] == list(range(60))
    assert found["label"] == train["label"].tolist()
    np.testing.assert_array_equal(found["is_faulty"], train["faulty"])
    kept = np.asarray(found["kept"])
    assert kept.sum() == 45
    assert want[kept].min() >= want[~kept].max()
    reader = pa.csv.read_csv if suffix == ".csv" else pq.read_table
    cleaned = reader(out / f"cleaned{suffix}")
    assert cleaned["id"].to_pylist() == np.flatnonzero(kept).tolist()
    assert cleaned.column_names == list(train)
    page = (out / "report.html").read_text(encoding="utf-8")
    auc = detection_auc(-want, train["faulty"])
    for text in ("least and the most", f"{auc:.3f} (AUC", ">petal<", "constant there, and 0"):
        assert text in page
    assert "3 numeric columns, standardised by the training set (1 constant" in said


def test_unscaled_columns_are_what_was_asked_for(run, tables, tmp_path):
    train, valid = tables
    files = write(tmp_path / "t.csv", train), write(tmp_path / "v.csv", valid)
    args = (*files, "--drop", "id", "--drop", "colour", "--drop", "faulty", "--no-report")
    out, said = run(*args, "--embedding", "raw", "--method", "knn-shapley")
    raw = np.asarray(pq.read_table(out / "values.parquet")["value"])
    run(*args, "--method", "knn-shapley")
    scaled = np.asarray(pq.read_table(out / "values.parquet")["value"])
    assert "in their own units" in said
    assert not (out / "report.html").exists()
    assert detection_auc(-scaled, train["faulty"]) > detection_auc(-raw, train["faulty"]) + 0.2


def test_named_features_are_the_only_ones(run, tables, tmp_path):
    train, valid = tables
    files = write(tmp_path / "t.csv", train), write(tmp_path / "v.csv", valid)
    _, said = run(*files, "--feature", "petal", "--method", "knn-shapley", "--no-report")
    assert "1 numeric columns" in said


def test_a_column_of_lists_is_an_embedding(run, tmp_path):
    rng = np.random.default_rng(0)
    sides = []
    for name, count in (("t", 40), ("v", 20)):
        x, y = rng.normal(size=(count, 3)), np.arange(count) % 2
        x[:, 0] += 4 * y
        pq.write_table(pa.table({"vector": x.tolist(), "label": y}), tmp_path / f"{name}.parquet")
        sides += [x, y]
    out, _ = run(
        tmp_path / "t.parquet", tmp_path / "v.parquet", "--method", "knn-shapley", "--no-report"
    )
    scaled = standardise(sides[0], sides[2])
    want = knn_shapley(scaled.train, sides[1], scaled.valid, sides[3]).values
    found = pq.read_table(out / "values.parquet")["value"].to_numpy()
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.fixture
def digits(tmp_path):
    """One archive with both sides, 20 % of the training labels wrong."""
    train, test = load_digits()
    train = {key: value[:150] for key, value in train.items()}
    noisy = symmetric_label_noise(train, 0.2, 10, seed=0)
    stored = {
        "x_train": noisy.examples["x"],
        "y_train": noisy.examples["y"],
        "wrong": noisy.is_flipped,
        "x_test": test["x"][:80],
        "y_test": test["y"][:80],
    }
    np.savez(tmp_path / "digits.npz", **stored)
    return tmp_path / "digits.npz", stored


def test_an_archive_holds_both_sides_and_its_truth(run, digits):
    file, stored = digits
    out, _ = run(file, file, "--method", "knn-shapley", "--truth", "wrong", "--balanced")
    sides = (stored["x_train"], stored["y_train"], stored["x_test"], stored["y_test"])
    features = [raw_features(sides[0]), raw_features(sides[2])]
    want = knn_shapley(features[0], sides[1], features[1], sides[3]).values
    found = pq.read_table(out / "values.parquet").to_pydict()
    np.testing.assert_allclose(found["value"], want, atol=1e-6)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 2 + 24  # two figures, and a picture per example shown
    kept = np.bincount(stored["y_train"][np.asarray(found["kept"])])
    counts = np.bincount(stored["y_train"])
    assert kept.max() - kept[counts >= kept.max()].min() <= 1
    cleaned = pa.csv.read_csv(out / "cleaned.csv").to_pydict()
    assert cleaned["row"] == np.flatnonzero(found["kept"]).tolist()
    assert cleaned["label"] == stored["y_train"][np.asarray(found["kept"])].tolist()


def test_lava_is_the_default_and_brings_its_certificate(run, digits):
    file, stored = digits
    out, said = run(file, file, "--truth", "wrong")
    found = pq.read_table(out / "values.parquet").to_pydict()
    sides = [stored[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    want = lava(raw_features(sides[0]), sides[1], raw_features(sides[2]), sides[3])
    np.testing.assert_allclose(found["value"], want.values, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found["calibrated_gradient"], want.calibrated_gradients, rtol=1e-4, atol=1e-4
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("How far the classes lie apart", "How far to trust", "finite difference error"):
        assert text in page
    assert "lowest value" in said


def test_a_solve_that_stopped_early_is_said(tmp_path):
    early = Valued("lava", np.arange(3.0), figures={"marginal_error": 0.5}, converged=False)
    section = certificate_section(early)
    assert "stopped before it reached the accuracy" in section.text[0]
    assert section.tables[0].rows[0][:2] == ("marginal error", 0.5)
    assert certificate_section(Valued("knn-shapley", np.arange(3.0))) is None
    labels, x = np.arange(3), np.zeros((3, 2), np.float32)
    sets = Sets(x, labels, x, labels, {0: "a", 1: "b", 2: "c"}, "")
    said = []
    for soft in (False, True):
        chapter = values_section(
            replace(early, soft=soft), Rows("t", labels, inputs=x), sets, labels > 0
        )
        said.append(any("stopped before" in line for line in chapter.text))
    assert said == [True, False]


def test_a_class_without_trusted_examples_is_said(run, digits):
    file, stored = digits
    np.savez(file, **(stored | {"y_train": np.where(np.arange(150) == 7, 11, stored["y_train"])}))
    out, said = run(file, file)
    line = next(line for line in said.splitlines() if "[11]" in line)
    assert line[:40] in (out / "report.html").read_text(encoding="utf-8")


def test_options_reach_lava(run, digits):
    file, _ = digits
    values = []
    for options in ((), ("--epsilon", 0.5), ("--label-weight", 0), ("--solver", "one-pass")):
        out, _ = run(file, file, *options, "--no-report")
        values.append(pq.read_table(out / "values.parquet")["value"].to_numpy())
    for other in values[1:]:
        assert not np.allclose(values[0], other)


def test_embeddings_and_labels_in_files_of_their_own(run, digits, tmp_path):
    _, stored = digits
    args = []
    for side, name in (("train", "train"), ("test", "valid")):
        np.save(tmp_path / f"{name}.npy", stored[f"x_{side}"].reshape(-1, 64))
        np.save(tmp_path / f"{name}_y.npy", stored[f"y_{side}"])
        args += [tmp_path / f"{name}.npy", f"--{name}-labels", tmp_path / f"{name}_y.npy"]
    np.save(tmp_path / "wrong.npy", stored["wrong"])
    out, said = run(
        *args, "--truth", tmp_path / "wrong.npy", "--method", "knn-shapley", "--no-report"
    )
    assert "64 numbers per row, as they are" in said
    found = pq.read_table(out / "values.parquet").to_pydict()
    np.testing.assert_array_equal(found["is_faulty"], stored["wrong"])


def test_folders_of_images(run, tmp_path):
    rng = np.random.default_rng(0)
    for side, count in (("train", 12), ("valid", 6)):
        for shade, name in ((60, "dark"), (200, "light")):
            folder = tmp_path / side / name
            folder.mkdir(parents=True)
            for i in range(count):
                level = 200 if (side, name, i) == ("train", "dark", 3) else shade
                pixels = np.clip(rng.normal(level, 10, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    out, said = run(tmp_path / "train", tmp_path / "valid", "--method", "knn-shapley", "--size", 6)
    found = pq.read_table(out / "values.parquet").to_pydict()
    worst = int(np.argmin(found["value"]))
    assert (found["file"][worst], found["label"][worst]) == ("dark/03.png", "dark")
    assert "dark/03.png" in said
    assert "108 stored bytes per row, scaled to [0, 1]" in said
    cleaned = pa.csv.read_csv(out / "cleaned.csv").to_pydict()
    assert "dark/03.png" not in cleaned["file"]
    assert len(cleaned["file"]) == round(0.9 * 24)


def refuse(refused, tmp_path, train, valid, *args):
    files = write(tmp_path / "t.csv", train), write(tmp_path / "v.csv", valid)
    return refused("value", *files, "--method", "knn-shapley", "--no-progress", *args)


@pytest.mark.parametrize(
    ("change", "args", "reason"),
    [
        ({}, ("--label", "kind"), "t.csv has no 'kind': it has id, petal, area"),
        (
            {"label": None, "species": NAMES[[0] * 60]},
            (),
            "is known for labels: name it by --label",
        ),
        ({"petal": np.linspace(0, 1, 60).astype(object)}, ("--drop", "size"), "has no 'size'"),
        ({"label": np.linspace(0, 1, 60)}, (), "labels are fractions, and classes are needed"),
        ({"label": np.arange(60)}, (), "labels are text in"),
        ({"colour": np.arange(60)}, (), "column 'colour' is text in one file and numbers in the"),
        ({"colour": np.array([f"c{i}" for i in range(60)])}, ("--truth", "colour"), "must be true"),
        ({}, ("--truth", "flat"), "must be true or false"),
        ({"faulty": np.zeros(60, int)}, ("--truth", "faulty"), "marks all rows of"),
        ({"extra": np.arange(60)}, (), "v.csv has no 'extra'"),
        ({}, ("--keep", "0"), "--keep is 0.0"),
        ({}, ("--epsilon", "0.1"), "knn-shapley has no epsilon: leave it out"),
        ({}, ("--valid-labels", "y.npy"), "brings its own labels"),
    ],
)
def test_tables_that_cannot_be_used(refused, tmp_path, change, args, reason):
    train = {
        name: column for name, column in (flowers(60, 0) | change).items() if column is not None
    }
    assert reason in refuse(refused, tmp_path, train, flowers(30, 1), *args)


def test_missing_values_are_named_with_their_row(refused, tmp_path):
    (tmp_path / "t.csv").write_text("a,label\n1,x\n,y\n3,\n")
    line = refused("value", tmp_path / "t.csv", tmp_path / "t.csv", "--no-progress")
    assert "column 'a' misses 1 of 3 values, first in row 1" in line


def test_text_that_is_no_category_is_refused(refused, tmp_path):
    train = flowers(300, 0) | {"colour": np.array([f"word {i}" for i in range(300)])}
    line = refuse(refused, tmp_path, train, flowers(30, 1))
    assert "302 different values, no category: leave it out with --drop colour" in line


def test_files_that_cannot_be_read(refused, tmp_path, digits):
    npz, stored = digits
    for name, content in (("bad.parquet", b"PAR"), ("bad.npz", b"no"), ("bad.npy", b"no")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.csv").write_text("a,label\n")
    (tmp_path / "twice.csv").write_text("a,a,label\n1,2,x\n")
    np.save(tmp_path / "x.npy", stored["x_train"].reshape(-1, 64))
    np.save(tmp_path / "y.npy", stored["y_train"][:9])
    np.savez(tmp_path / "wide.npz", x=np.zeros((5, 65), np.float32), y=np.arange(5))
    for args, reason in (
        (("absent.csv", npz), "no such file or folder"),
        ((npz, "absent.csv"), "no such file or folder"),
        (("bad.parquet", npz), "cannot be read"),
        (("bad.npz", npz), "cannot be read"),
        (("bad.npy", npz, "--train-labels", tmp_path / "y.npy"), "cannot be read as .npy"),
        (("empty.csv", npz), "has no rows"),
        (("twice.csv", npz), "two columns of one name"),
        (("x.npy", npz), "holds no labels: name their .npy file with --train-labels"),
        (("x.npy", npz, "--train-labels", tmp_path / "y.npy"), "one label per row is needed"),
        ((npz, "wide.npz"), "both must be made the same way"),
        ((npz, npz, "--truth", "right"), "no right in it"),
        ((npz, npz, "--feature", "pixels"), "has no 'pixels': it has x_train"),
    ):
        paths = [tmp_path / part if index < 2 else part for index, part in enumerate(args)]
        assert reason in refused("value", *paths, "--no-progress"), args
    (tmp_path / "note.txt").write_text("")
    assert "files of kind '.txt' are not read" in refused(
        "value", tmp_path / "note.txt", npz, "--no-progress"
    )


def test_a_table_beside_an_archive_is_refused(refused, tmp_path, digits):
    file = write(tmp_path / "t.csv", flowers(9, 0))
    assert "of different kinds" in refused("value", digits[0], file, "--no-progress")
    assert "of different kinds" in refused("value", file, digits[0], "--no-progress")


def test_every_option_has_a_sentence_and_the_command_an_example():
    import typer

    from jaxinf.cli.app import app

    command = typer.main.get_command(app).commands["value"]
    assert "jaxinf value" in command.epilog
    for parameter in command.params:
        if parameter.name != "help":
            assert (parameter.help or "").endswith((".", ")")), parameter.name


def test_every_method_by_name_is_there():
    from jaxinf.cli.valuators import find_function
    from jaxinf.cli.value_choices import Valuer

    assert all(callable(find_function(method)) for method in Valuer)


def test_the_help_of_every_command_stays_light():
    script = "import sys, jaxinf.cli.app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"ott", "matplotlib", "pyarrow", "sklearn"} & set(done.stdout.split())
