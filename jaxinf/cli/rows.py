"""A labelled set as read from a file, and what its readers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.errors import InputError

LABELS = ("label", "labels", "y", "target", "class")
"""What a column of labels is called, unless the user names it."""


@dataclass(frozen=True)
class Rows:
    """A labelled set, as it was stored.

    Attributes:
        name: where it came from.
        labels: [N], text or integers.
        columns: features of a table by name, each [N] (numbers or text) or [N, d] (numbers).
        inputs: [N, ...], in place of columns: images or embeddings.
        is_bad: bool[N], the truth about faults, where it was asked for.
        files: file of each image.
        table: the whole table as read, a `pyarrow.Table`.
    """

    name: str
    labels: np.ndarray
    columns: dict[str, np.ndarray] | None = None
    inputs: np.ndarray | None = None
    is_bad: np.ndarray | None = None
    files: tuple[str, ...] | None = None
    table: Any = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Wanted:
    """What to read from files.

    Attributes:
        label: column (or array) of the labels; None looks for the usual names.
        features: columns that are features, or one array; none given takes all that are left.
        drop: columns that are no features.
        truth: column (or array, or .npy file) that marks faults.
        size: side to which images are resized.
        labels_file: .npy file of the labels, for inputs in a .npy file.
        side: `"train"`, `"valid"` or `"test"`, for archives that hold several.
    """

    label: str | None = None
    features: Sequence[str] = ()
    drop: Sequence[str] = ()
    truth: str | None = None
    size: int | None = None
    labels_file: Path | None = None
    side: str = "train"


def find_name(
    path: Path,
    names: Sequence[str],
    given: str | None,
    usual: Sequence[str],
    what: str,
    option: str,
) -> str:
    """The name asked for, or the first of the usual ones that is there.

    Raises:
        InputError: it is not there, naming the option that says which one to take.
    """
    if given is not None:
        if given not in names:
            raise InputError(f"{path} has no {given!r}: it has {listed(names)}")
        return given
    for name in usual:
        if name in names:
            return name
    raise InputError(f"{path}: none of {listed(names)} is known for {what}: name it by {option}")


def read_truth(
    path: Path, wanted: Wanted, count: int, of_column: Callable[[str], np.ndarray] | None
) -> np.ndarray | None:
    """Which rows are faulty, where the user knows: bool[N], or None.

    Raises:
        InputError: for marks that are not one true or false per row, or all alike.
    """
    if wanted.truth is None:
        return None
    if wanted.truth.endswith(".npy"):
        marks = load_npy(Path(wanted.truth))
    elif of_column is None:
        raise InputError(f"{path} has no columns: --truth must name a .npy file of bool [{count}]")
    else:
        marks = of_column(wanted.truth)
    if marks.shape != (count,) or not np.isin(marks, (0, 1)).all():
        raise InputError(
            f"the truth {wanted.truth!r} must be true or false (or 1 and 0) for each of the "
            f"{count} rows of {path}, true for a faulty one"
        )
    marks = marks.astype(bool)
    if marks.all() or not marks.any():
        raise InputError(f"the truth {wanted.truth!r} marks all rows of {path} or none")
    return marks


def as_classes(path: Path, labels: np.ndarray) -> np.ndarray:
    """Labels as text or integers; whole floats are integers.

    Raises:
        InputError: for fractions, or more than one label per row.
    """
    if labels.ndim != 1:
        raise InputError(f"{path}: labels have shape {labels.shape}: one class per row is needed")
    if labels.dtype.kind in "OU":
        return labels.astype(str)
    if labels.dtype.kind == "f":
        if not (labels == np.rint(labels)).all():
            raise InputError(
                f"{path}: labels are fractions, and classes are needed: cut a regression target "
                "into classes first"
            )
        return labels.astype(np.int64)
    return labels.astype(np.int64)


def check_classes(classes: np.ndarray) -> None:
    """Refuse labels that are all the same: there is nothing to tell apart.

    Example:
        >>> check_classes(np.array(["rose", "lily"]))
    """
    if len(classes) < 2:
        raise InputError(f"all rows are of class {classes[0]}: at least 2 classes are needed")


def load_npy(path: Path) -> np.ndarray:
    """Read one array; nothing is unpickled.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy ({first_line(error)})") from error


def listed(names: Sequence[str]) -> str:
    """Names in a message, the first twelve of them."""
    shown = ", ".join(map(str, names[:12]))
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def first_line(error: Exception) -> str:
    """The first line of an error, or its kind when it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
