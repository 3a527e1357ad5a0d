"""`jaxinf mislabelled` on tables, archives and folders: the library's numbers, and refusals."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxinf.applications.mislabelled import cross_fit_logistic, find_mislabelled
from jaxinf.applications.mislabelled.evidence import Evidence
from jaxinf.cli.mislabelled_choices import Suspicion
from jaxinf.cli.mislabelled_search import read_budget
from jaxinf.errors import InputError
from jaxinf.evaluation import detection_auc
from jaxinf.valuation.columns import standardise

NAMES = np.array(["iris", "rose", "tulip"])


def flowers(count, seed):
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 3
    wrong = np.arange(count) % 10 == 0
    return {
        "id": np.arange(count),
        "petal": 3.0 * (kind == 1) + rng.normal(size=count),
        "leaf": 3.0 * (kind == 2) + rng.normal(size=count),
        "label": NAMES[np.where(wrong, (kind + 1) % 3, kind)],
        "wrong": wrong,
    }


def write(path, columns):
    table = pa.table({name: pa.array(column.tolist()) for name, column in columns.items()})
    (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


@pytest.fixture
def run(call, tmp_path):
    def run(*args: object):
        result = call("mislabelled", *args, "--out", tmp_path / "out", "--no-progress")
        assert result.exit_code == 0, result.output
        return tmp_path / "out", result.stdout

    return run


def test_a_table_without_a_trusted_set(run, tmp_path):
    columns = flowers(60, 0)
    file = write(tmp_path / "t.csv", columns)
    out, said = run(file, "--drop", "id", "--truth", "wrong", "--budget", 6)
    features = np.stack([columns["petal"], columns["leaf"]], axis=1)
    x = np.asarray(standardise(features, features).train, np.float32)
    y = np.searchsorted(NAMES, columns["label"])
    logs = cross_fit_logistic(x, y, 3, l2=0.01 * 60)
    want = find_mislabelled(Evidence({"x": x, "y": y}, out_of_fold=logs), budget=6)
    found = pq.read_table(out / "suspects.parquet").to_pydict()
    np.testing.assert_allclose(found["suspicion"], want.suspicion, atol=1e-3)
    assert found["row"] == list(range(60))
    assert found["label"] == columns["label"].tolist()
    assert found["suggested"] == NAMES[want.suggested].tolist()
    assert np.flatnonzero(found["flagged"]).tolist() == np.flatnonzero(want.is_flagged).tolist()
    assert sorted(found["rank"]) == list(range(1, 61))
    assert found["rank"][want.order[0]] == 1
    chances = np.exp(logs)[np.arange(60), y]
    np.testing.assert_allclose(found["probability_of_label"], chances, atol=1e-4)
    auc = detection_auc(want.suspicion, columns["wrong"])
    assert auc > 0.9
    kept = pa.csv.read_csv(out / "cleaned.csv")
    assert kept["id"].to_pylist() == np.flatnonzero(~want.is_flagged).tolist()
    listed = pa.csv.read_csv(out / "suggested.csv")
    assert listed["row"].to_pylist() == want.order[:6].tolist()
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in (f"AUC {auc:.3f}", "confident joint", ">petal<", "most suspect"):
        assert text in page
    assert "6 of 60 training labels (10.0%) are flagged" in said


@pytest.mark.slow
def test_pictures_with_a_trusted_set_and_a_network_that_resumes(run, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    x = np.where(y[:, None, None, None] == 1, 180, 60) + rng.integers(-20, 20, (48, 5, 5, 1))
    given = y.copy()
    given[[4, 9]] = 1 - given[[4, 9]]
    file = tmp_path / "d.npz"
    x = x.astype(np.uint8)
    np.savez(file, x_train=x[:40], y_train=given[:40], x_test=x[40:], y_test=y[40:])
    np.save(tmp_path / "wrong.npy", given[:40] != y[:40])
    args = (file, file, "--model", "mlp", "--folds", 2, "--method", "trusted-finite-loss")
    args += ("--truth", tmp_path / "wrong.npy", "--store", tmp_path / "store", "--budget", 0.05)
    out, _ = run(*args)
    first = pq.read_table(out / "suspects.parquet")
    assert np.flatnonzero(first["flagged"]).tolist() == [4, 9]
    assert first["suggested"].to_pylist()[4] == y[4]
    assert "data:image/png" in (out / "report.html").read_text(encoding="utf-8")
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("chunk_*")}
    assert len(trained) >= 2
    out, _ = run(*args, "--no-report")
    assert pq.read_table(out / "suspects.parquet").equals(first)
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


def test_a_folder_of_images(run, tmp_path):
    rng = np.random.default_rng(1)
    for name, shade in (("dark", 40), ("light", 200)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(6):
            wrong = number == 3 and name == "dark"
            pixels = rng.integers(0, 30, (6, 6, 3)) + (200 if wrong else shade)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    out, _ = run(tmp_path / "photos", "--budget", 1, "--folds", 3)
    found = pq.read_table(out / "suspects.parquet").to_pydict()
    assert found["file"][int(np.argmax(found["suspicion"]))].endswith("3.png")
    assert pa.csv.read_csv(out / "suggested.csv")["suggested"].to_pylist() == ["light"]


def test_every_method_has_a_name():
    from jaxinf.applications.mislabelled import METHODS

    assert {name.value.replace("-", "_") for name in Suspicion} == set(METHODS)


def test_budgets_as_typed():
    assert read_budget(None) is None
    with pytest.raises(InputError, match="--budget is 'lots'"):
        read_budget("lots")


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        ({}, ("--method", "trusted-jvp"), "trusted-jvp needs a trusted set"),
        ({}, ("--budget", "1.5"), "budget is 1.5"),
        ({}, ("--budget", "nan"), "budget is nan"),
        ({}, ("--budget", "99"), "0 to 30 examples"),
        ({}, ("--folds", "1"), "--folds is 1"),
        ({"label": np.array(["a"] * 29 + ["b"])}, (), "class 1 has one example"),
        ({"label": np.array(["a"] * 30)}, (), "all rows are of class a"),
        ({"petal": np.full(30, np.nan)}, (), "NaN"),
        ({}, ("--truth", "absent"), "has no 'absent'"),
    ],
)
def test_refusals(refused, tmp_path, change, args, message):
    file = write(tmp_path / "t.parquet", flowers(30, 0) | change)
    said = refused("mislabelled", file, *args, "--out", tmp_path / "out", "--no-progress")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_trusted_classes_unknown_to_training_and_an_empty_set(refused, tmp_path):
    train = write(tmp_path / "t.csv", flowers(30, 0))
    other = flowers(30, 1)
    other["label"][3] = "oak"
    valid = write(tmp_path / "v.csv", other)
    args = ("--method", "trusted-jvp", "--out", tmp_path / "out", "--no-progress")
    assert "classes that the training set lacks: oak" in refused("mislabelled", train, valid, *args)
    (tmp_path / "empty.csv").write_text("petal,label\n")
    assert "has no rows" in refused("mislabelled", tmp_path / "empty.csv", *args[2:])
