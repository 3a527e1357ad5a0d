"""Data files by name of their format, as a configuration file asks for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf import datasets
from jaxinf.errors import InputError

FORMATS = ("npz", "mnist", "cifar10", "cifar100", "jpeg-pack", "image-folder")
DATA_KEYS = frozenset(
    {"path", "format", "x", "y", "split", "limit", "indices", "mean", "std", "size", "classes"}
)
_SPLIT = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Data:
    """Examples ready for a model.

    Attributes:
        examples: `{"x": float32[N, ...], "y": int32[N]}`.
        classes: name of each label; empty when the files have none.
        moments: what was subtracted, and then divided by.
    """

    examples: dict[str, np.ndarray]
    classes: tuple[str, ...]
    moments: tuple[np.ndarray, np.ndarray]


def read_examples(section: Mapping[str, Any], folder: Path, name: str) -> Data:
    """Read what a section of a configuration file describes.

    Stored bytes (uint8) are scaled to [0, 1]; then `mean` is subtracted and `std` divided by, when
    given. `indices` picks rows; otherwise `limit` takes the first ones. `classes` names the
    labels, where the files do not.

    Args:
        section: `path` and `format`, and optionally the other `DATA_KEYS`.
        folder: what `path` is relative to.
        name: what to call the section in messages.

    Raises:
        InputError: for a key that is missing, a value that means nothing, or files that cannot be
            read.
    """
    for key in ("path", "format"):
        if not isinstance(section.get(key), str):
            raise InputError(f"{name} needs {key}, a text")
    rows = _rows(section, name)
    found, classes = _read(section, folder / section["path"], rows, name)
    if rows is not None and section["format"] != "jpeg-pack":
        if rows.max() >= len(found["y"]):
            raise InputError(
                f"{name}: index {rows.max()} is out of range, 0 to {len(found['y']) - 1}"
            )
        found = {key: value[rows] for key, value in found.items()}
    elif rows is None and "limit" in section:
        found = {key: value[: section["limit"]] for key, value in found.items()}
    classes = _class_names(section, name) or classes
    if found["y"].dtype.kind not in "iu":
        raise InputError(f"{name}: labels are {found['y'].dtype}; class labels are integers")
    mean, std = (np.asarray(section.get(key, at), np.float32) for key, at in _NEUTRAL.items())
    x = found["x"]
    if x.dtype == np.uint8:
        x = datasets.normalise(x, mean, std)
    else:
        x = _standardise(x, mean, std, name)
    return Data({"x": x, "y": found["y"]}, classes, (mean, std))


def _standardise(x: np.ndarray, mean: np.ndarray, std: np.ndarray, name: str) -> np.ndarray:
    if not (std > 0).all():
        raise InputError(f"{name}: std must be positive")
    try:
        return ((x - mean) / std).astype(np.float32)
    except ValueError as error:
        raise InputError(
            f"{name}: mean and std do not fit examples of shape {x.shape[1:]} ({error})"
        ) from error


_NEUTRAL = {"mean": 0.0, "std": 1.0}


def _class_names(section: Mapping[str, Any], name: str) -> tuple[str, ...]:
    names = section.get("classes", [])
    if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
        raise InputError(f"{name}: classes must be a list of names, in the order of the labels")
    return tuple(names)


def _rows(section: Mapping[str, Any], name: str) -> np.ndarray | None:
    limit = section.get("limit", 1)
    if not isinstance(limit, int) or limit < 1:
        raise InputError(f"{name}: limit is {limit!r}: a number of examples, at least 1")
    if "indices" not in section:
        return None
    if "limit" in section:
        raise InputError(f"{name}: give indices or limit, not both")
    rows = np.asarray(section["indices"])
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0:
        raise InputError(f"{name}: indices must be a list of row numbers from 0, such as [0, 5]")
    return rows


def _read(
    section: Mapping[str, Any], path: Path, rows: np.ndarray | None, name: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    side = _SPLIT.get(section.get("split", "train"))
    if side is None:
        raise InputError(f"{name}: split is {section['split']!r}: choose train or test")
    match section["format"]:
        case "npz":
            names = (
                {"x": "x_train", "y": "y_train"} if side == 0 else {"x": "x_test", "y": "y_test"}
            )
            names |= {key: section[key] for key in names if key in section}
            return datasets.read_npz(path, **names), ()
        case "mnist":
            return datasets.load_mnist(path)[side], ()
        case "cifar10":
            return datasets.load_cifar10(path)[side], datasets.cifar_classes(path)
        case "cifar100":
            return datasets.load_cifar100(path)[side], datasets.cifar_classes(path)
        case "jpeg-pack":
            wanted = rows
            if wanted is None and "limit" in section:
                wanted = np.arange(section["limit"])
            return datasets.read_jpeg_pack(path, None if wanted is None else wanted.tolist()), ()
        case "image-folder":
            size = section.get("size")
            found = datasets.read_image_folder(
                path, tuple(size) if isinstance(size, list) else size
            )
            return found.examples, found.classes
    raise InputError(f"{name}: format is {section['format']!r}: choose from {', '.join(FORMATS)}")
