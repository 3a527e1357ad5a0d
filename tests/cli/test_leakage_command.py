"""`jaxinf leakage` on every kind of file: copies named with their sources, clear refusals."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxinf.datasets import load_digits, plant_kinds

CONTRACT = """
import numpy as np

def loss_fn(w, batch):
    return (batch["x"] @ w - batch["y"]) ** 2

def influence():
    rng = np.random.default_rng(0)
    draw = lambda n: {"x": rng.normal(size=(n, 30)).astype(np.float32),
                      "y": rng.normal(size=n).astype(np.float32)}
    train, queries, clean = draw(60), draw(60), draw(140)
    for key in ("x", "y"):
        queries[key][:10] = train[key][5:15]
    queries["y"][5:10] *= -1
    found = {"loss_fn": loss_fn, "params": np.zeros(30, np.float32), "queries": queries,
             "train": train}
    return found | ({"clean": clean} if CLEAN else {})
"""


@pytest.fixture
def run(call, tmp_path):
    def run(*args: object):
        out = tmp_path / "out"
        result = call("leakage", *args, "--out", out, "--no-progress")
        assert result.exit_code == 0, result.output + result.stderr
        return out, result.stdout

    return run


@pytest.fixture(scope="module")
def planted():
    train, test = load_digits(seed=0)
    train = {key: value[:500] for key, value in train.items()}
    test = {key: value[:60] for key, value in test.items()}
    found = plant_kinds(train, test, 10, 0, kinds=("exact", "relabelled"), num_classes=10)
    as_bytes = lambda part: {**part, "x": np.rint(255 * part["x"]).astype(np.uint8)}
    return as_bytes(train), as_bytes(found.examples), found.source


@pytest.fixture
def archive(planted, tmp_path):
    train, test, _ = planted
    file = tmp_path / "digits.npz"
    # a validation set beside the test set is not what is asked for
    held = {"x_valid": test["x"][::-1], "y_valid": test["y"][::-1]}
    sets = {"x_train": train["x"], "y_train": train["y"], "x_test": test["x"], "y_test": test["y"]}
    np.savez(file, **sets, **held)
    return file


def check_found(table, source, *, most_false=2):
    called, found = np.asarray(table["is_leak"]), np.asarray(table["source"])
    leaked = source >= 0
    assert called[leaked].all()
    np.testing.assert_array_equal(found[leaked], source[leaked])
    assert called[~leaked].sum() <= most_false


def test_an_archive_is_compared_by_pixels_and_the_pairs_are_shown(run, archive, planted):
    *_, source = planted
    out, said = run(archive, archive, "--format", "parquet")
    table = pq.read_table(out / "leaks.parquet").to_pydict()
    check_found(table, source)
    assert "are called leaks" in said
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") >= 2 * 20 + 1
    assert "Leaks and their sources" in page
    # the relabelled ones disagree with their sources, the exact ones do not
    labels = np.asarray(table["label"]) != np.asarray(table["source_label"])
    np.testing.assert_array_equal(labels[60:], [False] * 10 + [True] * 10)


@pytest.mark.parametrize("compare", ["hash", "bytes", "cosine", "shifted"])
def test_other_comparisons(run, archive, planted, compare):
    *_, source = planted
    out, _ = run(
        archive, archive, "--compare", compare, "--no-report", "--clean",
        archive_of(archive.parent / "clean.npz"),
    )  # fmt: skip
    table = pa.csv.read_csv(out / "leaks.csv").to_pydict()
    check_found(table, source, most_false=60 if compare == "hash" else 4)
    assert not (out / "report.html").exists()


def archive_of(file):
    _, test = load_digits(seed=0)
    np.savez(file, x_test=np.rint(255 * test["x"][60:]).astype(np.uint8), y_test=test["y"][60:])
    return file


def test_folders_of_images_name_their_files(run, planted, tmp_path):
    train, test, source = planted
    for name, part in (("train", train), ("test", test)):
        for row, (image, label) in enumerate(zip(part["x"], part["y"], strict=True)):
            folder = tmp_path / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{row:04d}.png")
    out, _ = run(tmp_path / "train", tmp_path / "test")
    table = pa.csv.read_csv(out / "leaks.csv").to_pydict()
    rows = {int(file.split("/")[1][:4]): i for i, file in enumerate(table["file"])}
    for row in np.flatnonzero(source >= 0):
        at = rows[int(row)]
        assert table["is_leak"][at]
        assert int(table["source_file"][at].split("/")[1][:4]) == source[row]


def test_tables_and_embeddings(run, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 12)), rng.normal(size=(40, 12))
    y[7] = x[31]
    for name, rows in (("train", x), ("test", y)):
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
        columns = {f"c{i}": rows[:, i] for i in range(12)} | {"label": ["a"] * len(rows)}
        pa.csv.write_csv(pa.table(columns), tmp_path / f"{name}.csv")
    for suffix in ("npy", "csv"):
        files = (tmp_path / f"{name}.{suffix}" for name in ("train", "test"))
        out, _ = run(*files)
        table = pa.csv.read_csv(out / "leaks.csv").to_pydict()
        assert (np.argmax(table["statistic"]), table["source"][7]) == (7, 31)
        assert table["p_value"][7] == min(table["p_value"])
        assert ("label" in table) == (suffix == "csv")


def test_a_killed_run_goes_on_from_its_store(run, archive, tmp_path):
    store = tmp_path / "scores"
    options = ("--store", store, "--query-chunk", "30", "--no-report")
    first, _ = run(archive, archive, *options)
    before = (first / "leaks.csv").read_bytes()
    assert sorted(p.name for p in (store / "test").iterdir()) == [
        "queries-00000000", "queries-00000030", "queries-00000060",
    ]  # fmt: skip
    (first / "leaks.csv").unlink()
    again, _ = run(archive, archive, *options)
    assert (again / "leaks.csv").read_bytes() == before


@pytest.mark.parametrize("has_clean", [True, False])
def test_a_model_is_asked_by_influence(run, tmp_path, has_clean):
    file = tmp_path / "model.py"
    file.write_text(f"CLEAN = {has_clean}\n{CONTRACT}")
    out, said = run(file, "--absolute", "--fdr", "0.2")
    table = pa.csv.read_csv(out / "leaks.csv").to_pydict()
    method = "reference_influence" if has_clean else "grad_cos"
    assert method in said
    assert table["source"][:10] == list(range(5, 15))
    assert table["labels_disagree"][:10] == [False] * 5 + [True] * 5
    # by the bulk, leaks themselves widen what counts as usual
    assert np.asarray(table["is_leak"])[:10].sum() >= (10 if has_clean else 5)
    assert np.median(table["statistic"][:10]) > np.quantile(table["statistic"][10:], 0.9)
    assert "labels disagree" in (out / "report.html").read_text()


def test_bad_input(refused, archive, tmp_path):
    assert "fdr is 1.5" in refused("leakage", archive, archive, "--fdr", 1.5)
    assert "Give the test set" in refused("leakage", archive)
    assert "influence needs a model" in refused("leakage", archive, archive, "--absolute")
    assert "no such file" in refused("leakage", tmp_path / "none.npz", archive)
    empty = tmp_path / "empty.npz"
    np.savez(empty, x=np.zeros((0, 8, 8, 1), np.uint8), y=np.zeros(0, np.int32))
    assert "is empty" in refused("leakage", empty, archive)
    larger = tmp_path / "larger.npz"
    np.savez(larger, x=np.zeros((30, 9, 9, 1), np.uint8), y=np.zeros(30, np.int32))
    assert "both must be made the same way" in refused("leakage", archive, larger)
    text = tmp_path / "text.csv"
    pa.csv.write_csv(pa.table({"a": [1.0] * 30, "label": ["x"] * 30}), text)
    numbers = tmp_path / "numbers.csv"
    pa.csv.write_csv(pa.table({"a": [1.0] * 30, "label": [1] * 30}), numbers)
    assert "labels are text in" in refused("leakage", text, numbers)
    few = tmp_path / "few.npz"
    np.savez(few, x=np.zeros((5, 8, 8, 1), np.uint8), y=np.zeros(5, np.int32))
    assert "at least 19 are needed" in refused("leakage", archive, archive, "--clean", few)
    assert "5 clean calibration queries" in refused("leakage", few, few)
    rows = tmp_path / "rows.npy"
    np.save(rows, np.zeros((30, 4), np.float32))
    assert "holds no images" in refused("leakage", rows, rows, "--compare", "shifted")
    assert "uint8" in refused("leakage", rows, rows, "--compare", "hash")
    model = tmp_path / "model.py"
    model.write_text(f"CLEAN = False\n{CONTRACT}")
    assert "brings its own queries" in refused("leakage", model, archive)
    assert "needs clean queries" in refused("leakage", model, "--method", "reference")
