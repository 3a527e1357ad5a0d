import os
import pickle
import struct

import numpy as np
import pytest

from jaxinf.datasets import cifar_classes, load_cifar10, load_cifar100, read_cifar_batch
from jaxinf.errors import InputError


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch opcode by opcode as Python 2's cPickle wrote the published files."""
    text = lambda value: b"U" + bytes([len(value)]) + value
    number = lambda value: b"J" + struct.pack("<i", value)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + (number(0) + b"\x85" + text(b"b") + b"\x87R")
        + (b"(" + number(1) + number(len(data)) + number(3072) + b"\x86")
        + (b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R")
        + (b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb")
        + (b"\x89T" + struct.pack("<i", data.nbytes) + data.tobytes() + b"tb")
    )
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def expected_images(rows: np.ndarray) -> np.ndarray:
    planes = [rows[:, 1024 * c : 1024 * (c + 1)].reshape(-1, 32, 32) for c in range(3)]
    return np.stack(planes, axis=-1)


def test_batch_as_published(tmp_path):
    rows = rows_of(4)
    (tmp_path / "batch").write_bytes(python2_batch(rows, [3, 0, 9, 1]))
    got = read_cifar_batch(tmp_path / "batch")
    np.testing.assert_array_equal(got["x"], expected_images(rows))
    np.testing.assert_array_equal(got["y"], [3, 0, 9, 1])
    assert got["x"].dtype == np.uint8
    assert got["y"].dtype == np.int32


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", [str, str.encode])
def test_batch_saved_again_by_python_3(tmp_path, protocol, key):
    rows = rows_of(3)
    content = {
        key("data"): rows,
        key("labels"): [np.int64(2), 1, 0],
        key("filenames"): [b"a.png", "b.png", b"c.png"],
    }
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol))
    got = read_cifar_batch(tmp_path / "batch")
    np.testing.assert_array_equal(got["x"], expected_images(rows))
    np.testing.assert_array_equal(got["y"], [2, 1, 0])


def test_folders(tmp_path):
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    for i in range(1, 6):
        (inner / f"data_batch_{i}").write_bytes(python2_batch(rows_of(2, i), [i, i]))
    with pytest.raises(InputError, match="test_batch: no such file"):
        load_cifar10(tmp_path)
    (inner / "test_batch").write_bytes(python2_batch(rows_of(3), [0, 1, 2]))
    (inner / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", "dog"]}))
    for folder in (tmp_path, inner):
        train, test = load_cifar10(folder)
        np.testing.assert_array_equal(train["y"], np.repeat(np.arange(1, 6), 2))
        np.testing.assert_array_equal(train["x"][8:], expected_images(rows_of(2, 5)))
        np.testing.assert_array_equal(test["y"], [0, 1, 2])
        assert cifar_classes(folder) == ("cat", "dog")


def test_cifar100_has_two_kinds_of_labels(tmp_path):
    for name in ("train", "test"):
        content = {"data": rows_of(2), "fine_labels": [55, 99], "coarse_labels": [4, 19]}
        (tmp_path / name).write_bytes(pickle.dumps(content))
    names = {"fine_label_names": ["otter"], "coarse_label_names": ["aquatic mammals"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(names))
    np.testing.assert_array_equal(load_cifar100(tmp_path)[0]["y"], [55, 99])
    np.testing.assert_array_equal(load_cifar100(tmp_path, coarse=True)[1]["y"], [4, 19])
    np.testing.assert_array_equal(read_cifar_batch(tmp_path / "test")["y"], [55, 99])
    assert cifar_classes(tmp_path) == ("otter",)
    assert cifar_classes(tmp_path, coarse=True) == ("aquatic mammals",)


class Runs:
    """Unpickling an instance calls `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "hostile",
    [
        lambda target: Runs(os.mkdir, str(target)),
        lambda target: Runs(eval, f"__import__('os').mkdir({str(target)!r})"),
        lambda target: Runs(getattr, "text", "upper"),
    ],
)
def test_code_in_a_pickle_is_not_run(tmp_path, hostile, protocol):
    payload = hostile(tmp_path / "made")
    data = pickle.dumps({"data": rows_of(1), "labels": [0], "extra": payload}, protocol)
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(InputError, match="which is no data"):
        read_cifar_batch(tmp_path / "batch")
    assert not (tmp_path / "made").exists()
    pickle.loads(data)  # the plain unpickler does run it: the test would notice
    assert (tmp_path / "made").exists() == (payload.call[0] is not getattr)


def test_objects_in_an_array_are_refused(tmp_path):
    content = {"data": np.array([[1, "a"]], object), "labels": [0]}
    (tmp_path / "batch").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="array of object"):
        read_cifar_batch(tmp_path / "batch")


def test_shared_dtype_objects_cannot_be_altered(tmp_path):
    # a pickle may set the state of whatever it was handed: that must be a copy
    build = b"\x80\x02cnumpy\ndtype\n(U\x02i4\x89\x89tR"
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb."
    (tmp_path / "batch").write_bytes(build + state)
    with pytest.raises(InputError, match="not a dict"):
        read_cifar_batch(tmp_path / "batch")
    assert np.dtype("i4").isnative


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "can be read"),
        (b"\x89PNG", "can be read"),
        (python2_batch(rows_of(2), [0, 1])[:-900], "can be read"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"data": rows_of(2)[:, :3000], "labels": [0, 1]}), "no 'data' of shape"),
        (pickle.dumps({"data": [1, 2], "labels": [0, 1]}), "no 'data' of shape"),
        (pickle.dumps({"labels": [0, 1]}), "no 'data' of shape"),
        (pickle.dumps({"data": rows_of(2).astype("f4"), "labels": [0, 1]}), "float32, not uint8"),
        (pickle.dumps({"data": rows_of(2), "labels": [0]}), "no labels or fine_labels"),
        (pickle.dumps({"data": rows_of(2), "names": [0, 1]}), "it holds data, names"),
    ],
)
def test_damaged_batches_are_refused(tmp_path, data, message):
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_cifar_batch(tmp_path / "batch")


def test_absent_labels_and_names_are_refused(tmp_path):
    (tmp_path / "batch").write_bytes(python2_batch(rows_of(1), [0]))
    with pytest.raises(InputError, match="no coarse_labels"):
        read_cifar_batch(tmp_path / "batch", labels="coarse_labels")
    with pytest.raises(InputError, match="neither batches"):
        cifar_classes(tmp_path)
    (tmp_path / "meta").write_bytes(pickle.dumps({"something": 1}))
    with pytest.raises(InputError, match="no fine_label_names"):
        cifar_classes(tmp_path)
