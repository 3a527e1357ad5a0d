"""numpy archives: plain arrays, and images packed as JPEG bytes. Nothing is unpickled."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.datasets.arrays import Examples
from jaxinf.errors import InputError, check_dtypes, require_extra


def read_npz(path: str | Path, x: str = "x_train", y: str = "y_train") -> Examples:
    """Read two arrays of an .npz file as examples.

    Args:
        path: the archive; arrays of Python objects in it are refused, never unpickled.
        x: name of the inputs in the archive.
        y: name of the labels in the archive.

    Returns:
        `{"x": array[N, ...], "y": [N]}`. Inputs keep their dtype; grey images stored without a
        channel axis (uint8[N, H, W]) get one, [N, H, W, 1]. Integer labels become int32, and
        floating-point targets stay as they are.

    Raises:
        InputError: no such file, no archive, no array of that name, arrays that are not
            numeric, or unequal numbers of inputs and labels.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "data.npz")
        >>> np.savez(file, x_train=np.zeros((2, 3), np.float32), y_train=np.array([0, 1]))
        >>> read_npz(file)["y"]
        array([0, 1], dtype=int32)
    """
    arrays = _read_arrays(Path(path), (x, y))
    inputs, labels = arrays[x], arrays[y]
    check_dtypes({x: inputs, y: labels}, str(path))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not inputs.ndim or labels.shape != inputs.shape[:1]:
        raise InputError(
            f"{path}: {x} has shape {inputs.shape} and {y} {labels.shape}: one label per row of "
            f"{x} is needed"
        )
    if inputs.dtype == np.uint8 and inputs.ndim == 3:
        inputs = inputs[..., None]
    return {"x": inputs, "y": labels.astype(np.int32) if labels.dtype.kind in "biu" else labels}


def read_jpeg_pack(path: str | Path, indices: Iterable[int] | None = None) -> Examples:
    """Read images packed as JPEG bytes with one shared header, decoding only what is asked for.

    The archive holds `header` (uint8), `body` (uint8: the bytes between the header and the end
    marker, image after image), `offsets` (integers [N + 1] into the body) and `label` [N].

    Args:
        path: the .npz archive.
        indices: rows to decode, in this order; all of them by default.

    Returns:
        `{"x": uint8[n, H, W, 3], "y": int32[n]}`.

    Raises:
        InputError: no such file or archive, rows out of range, or an image that cannot be
            decoded or has another size than the first (the message names its row).
        MissingExtraError: Pillow is not installed.

    Example:
        >>> read_jpeg_pack("no/such.npz", range(10))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such.npz: no such file
    """
    arrays = _read_arrays(Path(path), ("header", "body", "offsets", "label"))
    offsets, labels = arrays["offsets"].astype(np.int64), arrays["label"]
    count = len(labels)
    rows = np.arange(count) if indices is None else np.asarray(list(indices))
    if not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= count:
        raise InputError(f"{path}: indices must be row numbers from 0 to {count - 1}")
    if (
        offsets.shape != (count + 1,)
        or (np.diff(offsets) < 0).any()
        or offsets[0] < 0
        or offsets[-1] > arrays["body"].nbytes
    ):
        raise InputError(f"{path}: offsets do not cut the body into {count} images")
    header, body = arrays["header"].tobytes(), arrays["body"].tobytes()
    images = []
    for row in rows:
        data = b"".join((header, body[offsets[row] : offsets[row + 1]], b"\xff\xd9"))
        images.append(_decode(data, f"{path}: image {row}"))
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{path}: image {row} has shape {images[-1].shape} and image {rows[0]} "
                f"{images[0].shape}: all must have one size"
            )
    return {"x": np.stack(images), "y": labels[rows].astype(np.int32)}


def _decode(data: bytes, where: str) -> np.ndarray:
    image = require_extra("PIL.Image", "cli")
    try:
        with image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{where} cannot be decoded ({error})") from error


def _read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        # opened here: of a damaged archive numpy would leave the file open
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise InputError(f"{path}: a single array (.npy); an .npz archive is needed")
            with loaded as archive:
                missing = [name for name in names if name not in archive.files]
                if missing:
                    raise InputError(
                        f"{path}: no {' and no '.join(missing)} in it; it holds "
                        f"{', '.join(archive.files) or 'nothing'}"
                    )
                return {name: archive[name] for name in names}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not an .npz archive of plain arrays ({reason})") from error
