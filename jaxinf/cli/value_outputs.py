"""Values as files: a row per training row, and the list of those worth keeping."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.cli.rows import Rows
from jaxinf.cli.valuators import Valued
from jaxinf.errors import InputError, require_extra
from jaxinf.report.sections import Column, Table
from jaxinf.valuation.selection import select


def check_share(share: float) -> None:
    """Refuse a share that keeps nothing, or more than there is.

    Raises:
        InputError: naming it.
    """
    if not 0 < share <= 1:
        raise InputError(f"--keep is {share}: give a share above 0 and up to 1")


def choose_kept(values: np.ndarray, labels: np.ndarray | None, share: float) -> np.ndarray:
    """Mark the rows to keep: bool[N].

    Args:
        values: float[N], higher = more worth having.
        labels: [N], for equally many rows of each class; None for the best rows whatever they are.
        share: how many, of all.

    Example:
        >>> choose_kept(np.array([0.0, 2.0, 1.0, 3.0]), None, 0.5)
        array([False,  True, False,  True])
    """
    kept = np.zeros(len(values), bool)
    kept[select(values, budget=max(1, round(share * len(values))), labels=labels)] = True
    return kept


def write_values(folder: Path, rows: Rows, valued: Valued, kept: np.ndarray) -> Path:
    """Write `values.parquet`: `row`, `label`, `value`, `kept`, and what else there is.

    `file` for images, `calibrated_gradient` (LAVA's own sign: higher is worse), `standard_error`
    of methods that sample, and `is_faulty` where it is known.

    Raises:
        InputError: the folder cannot be written to.
    """
    columns: dict[str, Any] = {"row": np.arange(len(rows))}
    if rows.files is not None:
        columns["file"] = list(rows.files)
    columns |= {"label": storable(rows.labels), "value": valued.values, "kept": kept}
    columns |= valued.columns
    if rows.is_bad is not None:
        columns["is_faulty"] = rows.is_bad
    table = require_extra("pyarrow", "cli").table(columns)
    return write_table(folder / "values.parquet", table)


def write_cleaned(folder: Path, rows: Rows, kept: np.ndarray) -> Path:
    """Write the kept rows: those of the table itself, in its own form, or else their numbers.

    A csv or parquet table comes as `cleaned.csv` or `cleaned.parquet` with all its columns; for
    images and arrays, `cleaned.csv` has `row`, `label` and (images) `file`.

    Raises:
        InputError: the folder cannot be written to.
    """
    pyarrow = require_extra("pyarrow", "cli")
    if rows.table is not None:
        suffix = ".csv" if rows.name.lower().endswith(".csv") else ".parquet"
        return write_table(folder / f"cleaned{suffix}", rows.table.filter(pyarrow.array(kept)))
    numbers = np.flatnonzero(kept)
    columns: dict[str, Any] = {"row": numbers, "label": storable(rows.labels[kept])}
    if rows.files is not None:
        columns["file"] = [rows.files[row] for row in numbers.tolist()]
    return write_table(folder / "cleaned.csv", pyarrow.table(columns))


def summary_table(valued: Valued, rows: Rows, count: int = 5) -> Table:
    """The lowest values, for the terminal."""
    order = np.argsort(valued.values, kind="stable")[:count].tolist()
    names = rows.files if rows.files is not None else range(len(rows))
    return Table(
        (
            Column("file" if rows.files is not None else "row"),
            Column("label"),
            Column("value", ".4g"),
        ),
        tuple((names[row], str(rows.labels[row]), float(valued.values[row])) for row in order),
        "The training rows of lowest value.",
    )


def write_table(file: Path, table: Any) -> Path:
    """Write a table as csv or parquet, by the name of the file.

    Raises:
        InputError: the file cannot be written.
    """
    kind = "csv" if file.suffix == ".csv" else "parquet"
    writer = require_extra(f"pyarrow.{kind}", "cli")
    write = writer.write_csv if kind == "csv" else writer.write_table
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(table, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error})") from error
    return file


def storable(labels: np.ndarray) -> Any:
    """Labels as pyarrow takes them: text as Python strings."""
    return labels.tolist() if labels.dtype.kind == "U" else labels
