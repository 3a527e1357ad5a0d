"""The idx files of MNIST and its relatives, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from jaxinf.datasets.arrays import Examples
from jaxinf.errors import InputError

# third byte of the magic number -> element type; everything in the file is big-endian
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """Read one idx file; a gzipped one is recognised by its first bytes, not by its name.

    Args:
        path: the file. Its header says the element type (uint8, int8, int16, int32, float32
            or float64) and the sizes of up to 255 axes.

    Returns:
        Array of that type and shape, in the machine's byte order.

    Raises:
        InputError: no such file, no idx file, or one that is cut short or too long.

    Reference:
        "The IDX file format", on the page of the MNIST database (LeCun, Cortes, Burges).

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "three-idx1-ubyte")
        >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(file)
        array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error})") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise InputError(f"{path}: not an idx file (it starts with {data[:4].hex() or 'nothing'})")
    dtype, num_axes = np.dtype(_IDX_DTYPES[data[2]]), data[3]
    start = 4 + 4 * num_axes
    if len(data) < start:
        raise InputError(f"{path}: cut short inside the header ({len(data)} of {start} bytes)")
    shape = tuple(np.frombuffer(data, ">u4", num_axes, offset=4).tolist())
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InputError(
            f"{path}: {len(data)} bytes, but its header of shape {shape} asks for {expected}: "
            "copy or download it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def load_mnist(folder: str | Path) -> tuple[Examples, Examples]:
    """Load MNIST, Fashion-MNIST or another set in the same four files.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two `t10k-`
            files, each plain or with `.gz`, with a dash or a dot before `idx`.

    Returns:
        `(train, test)`, each `{"x": uint8[N, 28, 28, 1], "y": int32[N]}` in the stored order.

    Raises:
        InputError: a file is missing or damaged, or images and labels differ in number.

    Example:
        >>> load_mnist("no/such/folder")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such/folder: no train-images-idx3-ubyte or ...gz in it
    """
    return _load_side(Path(folder), "train"), _load_side(Path(folder), "t10k")


def _load_side(folder: Path, side: str) -> Examples:
    images = read_idx(_find(folder, f"{side}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{side}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{folder}: the {side} images have shape {images.shape} and the labels "
            f"{labels.shape}: they are not of one set"
        )
    return {"x": images[..., None], "y": labels.astype(np.int32)}


def _find(folder: Path, name: str) -> Path:
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    raise InputError(f"{folder}: no {name} or {name}.gz in it")
