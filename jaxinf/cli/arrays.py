"""Labelled sets that are arrays: npz archives, npy files, folders of images."""

import zipfile
from pathlib import Path

import numpy as np

from jaxinf import datasets
from jaxinf.cli.rows import (
    LABELS,
    Rows,
    Wanted,
    as_classes,
    find_name,
    first_line,
    load_npy,
    read_truth,
)
from jaxinf.errors import InputError

_INPUTS = ("x", "features", "embeddings", "images")
# how archives that hold several sets call each side's arrays
_SUFFIXES = {
    "train": ("_train", ""),
    "valid": ("_valid", "_val", "_test", ""),
    "test": ("_test", "_valid", "_val", ""),
}


def read_npz(path: Path, wanted: Wanted) -> Rows:
    """Read an archive: inputs and labels by the usual names, or by those the user gave.

    An archive may hold both sides, as `x_train` and `x_test`.

    Raises:
        InputError: it cannot be read, or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)})") from error
    if len(wanted.features) > 1:
        raise InputError(f"{path}: give one --feature, the array of the inputs")
    ends = _SUFFIXES[wanted.side]
    usual = [stem + end for end in ends for stem in _INPUTS]
    x = find_name(path, names, next(iter(wanted.features), None), usual, "inputs", "--feature")
    usual = [stem + end for end in ends for stem in LABELS]
    y = find_name(path, names, wanted.label, usual, "labels", "--label")
    found = datasets.read_npz(path, x, y)
    truth = read_truth(
        path, wanted, len(found["y"]), lambda name: datasets.read_npz(path, x, name)["y"]
    )
    return Rows(str(path), as_classes(path, found["y"]), inputs=found["x"], is_bad=truth)


def read_npy(path: Path, wanted: Wanted) -> Rows:
    """Read precomputed embeddings from one file, and their labels from another.

    Raises:
        InputError: a file cannot be read, or they do not fit each other.
    """
    if wanted.labels_file is None:
        raise InputError(
            f"{path} holds no labels: name their .npy file with --{wanted.side}-labels, or put "
            "both into one .npz file"
        )
    inputs, labels = load_npy(path), load_npy(wanted.labels_file)
    if not inputs.ndim or labels.shape != inputs.shape[:1]:
        raise InputError(
            f"{path} has shape {inputs.shape} and {wanted.labels_file} {labels.shape}: one label "
            "per row is needed"
        )
    truth = read_truth(path, wanted, len(labels), None)
    return Rows(str(path), as_classes(wanted.labels_file, labels), inputs=inputs, is_bad=truth)


def read_folder(path: Path, wanted: Wanted) -> Rows:
    """Read images; the names of the subfolders are their labels.

    Raises:
        InputError: as `jaxinf.datasets.read_image_folder`.
    """
    found = datasets.read_image_folder(path, wanted.size)
    labels = np.asarray(found.classes)[found.examples["y"]]
    truth = read_truth(path, wanted, len(labels), None)
    return Rows(str(path), labels, inputs=found.examples["x"], is_bad=truth, files=found.files)
