import gzip
import struct

import numpy as np
import pytest

from jaxinf.datasets import load_mnist, read_idx
from jaxinf.errors import InputError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 4), ()])
def test_round_trip(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "packed").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("plain", "packed"):
        got = read_idx(tmp_path / name)
        np.testing.assert_array_equal(got, array)
        assert got.dtype == np.dtype(dtype)
        assert got.dtype.isnative
        assert got.flags.writeable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an idx file"),
        (b"\x89PNG....", "not an idx file"),
        (b"\0\0\x0a\x01\0\0\0\x01\0", "not an idx file"),
        (b"\0\0\x08\x02\0\0\0\x01", "cut short inside the header"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "asks for 11"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", "asks for 11"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "asks for"),
        (gzip.compress(idx_bytes(np.arange(99, dtype="i4")))[:-20], "damaged gzip"),
        (b"\x1f\x8b junk", "damaged gzip"),
    ],
)
def test_damaged_files_are_refused(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "file")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such file"):
        read_idx(tmp_path / "absent")


def test_mnist_folder_plain_packed_and_dotted(tmp_path):
    rng = np.random.default_rng(1)
    train = rng.integers(0, 256, (6, 28, 28), np.uint8), rng.integers(0, 10, 6, np.uint8)
    test = rng.integers(0, 256, (2, 28, 28), np.uint8), rng.integers(0, 10, 2, np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(train[0])))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(train[1]))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx_bytes(test[0]))
    with pytest.raises(InputError, match="no t10k-labels-idx1-ubyte"):
        load_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(test[1]))
    for got, expected in zip(load_mnist(tmp_path), (train, test), strict=True):
        np.testing.assert_array_equal(got["x"][..., 0], expected[0])
        np.testing.assert_array_equal(got["y"], expected[1])
        assert got["x"].dtype == np.uint8
        assert got["y"].dtype == np.int32
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(train[1]))
    with pytest.raises(InputError, match="not of one set"):
        load_mnist(tmp_path)
