"""Labelled sets as users keep them: csv and parquet tables, and whatever `arrays` reads."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.cli.arrays import read_folder, read_npy, read_npz
from jaxinf.cli.rows import LABELS, Rows, Wanted, as_classes, find_name, first_line, read_truth
from jaxinf.errors import InputError, require_extra

TABLES = (".csv", ".parquet")


def read_rows(path: Path, wanted: Wanted) -> Rows:
    """Read a labelled set by the kind of its file.

    Raises:
        InputError: no such file, another kind of file, a damaged one, a column that is missing,
            has missing values or means nothing, or labels that are no classes.
        MissingExtraError: pyarrow or Pillow is not installed.

    Example:
        >>> read_rows(Path("absent.csv"), Wanted())
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent.csv: no such file or folder
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    readers = {".npz": read_npz, ".npy": read_npy} | dict.fromkeys(TABLES, _read_table)
    read = read_folder if path.is_dir() else readers.get(path.suffix.lower())
    if read is None:
        raise InputError(
            f"{path}: files of kind {path.suffix or 'no suffix'!r} are not read: give .csv, "
            ".parquet, .npz, .npy or a folder with one subfolder of images per class"
        )
    if wanted.labels_file is not None and path.suffix.lower() != ".npy":
        raise InputError(f"{path} brings its own labels: a file of labels goes with a .npy file")
    return read(path, wanted)


def _read_table(path: Path, wanted: Wanted) -> Rows:
    pyarrow = require_extra("pyarrow", "cli")
    try:
        if path.suffix.lower() == ".csv":
            table = require_extra("pyarrow.csv", "cli").read_csv(path)
        else:
            table = require_extra("pyarrow.parquet", "cli").read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)})") from error
    if not table.num_rows:
        raise InputError(f"{path} has no rows")
    if len(set(table.column_names)) < table.num_columns:
        raise InputError(f"{path} has two columns of one name: rename one")
    label = find_name(path, table.column_names, wanted.label, LABELS, "labels", "--label")
    apart = {label, *wanted.drop}
    if wanted.truth is not None and not wanted.truth.endswith(".npy"):
        apart.add(find_name(path, table.column_names, wanted.truth, (), "truth", "--truth"))
    for name in (*wanted.features, *wanted.drop):
        find_name(path, table.column_names, name, (), "features", "--feature")
    names = wanted.features or [name for name in table.column_names if name not in apart]
    if not names:
        raise InputError(f"{path} has no column beside {', '.join(sorted(apart))}")
    columns = {name: _column(path, name, table[name]) for name in names}
    truth = read_truth(path, wanted, table.num_rows, lambda name: _column(path, name, table[name]))
    labels = as_classes(path, _column(path, label, table[label]))
    return Rows(str(path), labels, columns=columns, is_bad=truth, table=table)


def _column(path: Path, name: str, column: Any) -> np.ndarray:
    """A column as an array: numbers, text, or one row of numbers per row."""
    types = require_extra("pyarrow.types", "cli")
    where = f"{path}: column {name!r}"
    if column.null_count:
        first = column.is_null().index(True).as_py()
        raise InputError(
            f"{where} misses {column.null_count} of {len(column)} values, first in row {first}: "
            "fill them in, or leave the column or the rows out"
        )
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        try:
            return np.stack(column.to_numpy()).astype(np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where} holds lists that are not all of one length") from error
    if types.is_string(kind) or types.is_large_string(kind):
        return np.asarray(column.to_pylist(), dtype=str)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise InputError(f"{where} is {kind}: numbers or text are needed (--drop leaves it out)")
    return column.to_numpy()
