"""Pairs of a training and a test example that count, as a file and as a chapter of a report."""

from pathlib import Path, PurePath
from typing import Any

from jaxinf.cli.memorisation_pairs import Owed
from jaxinf.cli.rows import Rows
from jaxinf.cli.value_outputs import storable, write_table
from jaxinf.cli.valued import cell_text, is_picture
from jaxinf.errors import require_extra
from jaxinf.report.figures import image_png
from jaxinf.report.sections import Cell, Column, Example, Mark, Section, Strip, Table

_PAIRED, _COLUMNS = 12, 5


def write_pairs(folder: Path, train: Rows, owed: Owed) -> Path:
    """Write `pairs.parquet`, a row per pair that counts; with its columns where there are none.

    Raises:
        InputError: the folder cannot be written to.
    """
    pyarrow = require_extra("pyarrow", "cli")
    pairs = owed.pairs
    columns: dict[str, Any] = {
        "train_index": pairs.train,
        "test_index": pairs.test,
        "influence": pairs.influence,
        "standard_error": pairs.standard_error,
        "memorisation": pairs.memorisation,
    }
    for side, rows, at in (("train", train, pairs.train), ("test", owed.rows, pairs.test)):
        labels = rows.labels[at]
        # an empty list would have no type
        kind = pyarrow.string() if labels.dtype.kind == "U" else pyarrow.int64()
        columns[f"{side}_label"] = pyarrow.array(storable(labels), kind)
        if rows.files is not None:
            files = [rows.files[row] for row in at.tolist()]
            columns[f"{side}_file"] = pyarrow.array(files, pyarrow.string())
    return write_table(folder / "pairs.parquet", pyarrow.table(columns))


def pairs_section(train: Rows, owed: Owed) -> Section:
    """The strongest pairs, side by side."""
    title = "Which test examples are right because of one training example?"
    text = (
        owed.summary,
        "The influence of a training example on a test example: the share of models that are right "
        "about the second when they were trained on the first, less the share when they were not. "
        f"All models together are right on {owed.accuracy:.1%} of the test examples. "
        "pairs.parquet lists every pair that counts.",
    )
    count = min(_PAIRED, len(owed.pairs.train))
    if not count:
        return Section(title, text)
    if train.inputs is not None and is_picture(train.inputs[0]):
        strips = tuple(_strip(train, owed, number) for number in range(count))
        return Section(title, text, strips=strips)
    return Section(title, text, tables=(_table(train, owed, count),))


def _strip(train: Rows, owed: Owed, number: int) -> Strip:
    train_row, test_row, influence, error, memorised = (each[number] for each in owed.pairs)
    of_test = f"influence {influence:.2f} ± {error:.2f}"
    seen = _card(train, train_row, f"memorised {memorised:.2f}", "training")
    return Strip(
        (("Right because of this training example", (seen,)),),
        _card(owed.rows, test_row, of_test, "test", "query"),
    )


def _card(rows: Rows, row: int, figure: str, side: str, mark: Mark = "") -> Example:
    assert rows.inputs is not None
    name = f"row {row}" if rows.files is None else PurePath(rows.files[row]).name
    picture = image_png(rows.inputs[row])
    return Example((str(rows.labels[row]), figure, f"{side} {name}"), picture, mark)


def _table(train: Rows, owed: Owed, count: int) -> Table:
    """Two lines a pair: the test example, then the training example."""
    shown = list(train.columns or {})[:_COLUMNS]
    pairs = owed.pairs

    def line(rows: Rows, number: int, side: str, row: int, *figures: Cell) -> tuple[Cell, ...]:
        columns = rows.columns or {}
        cells = (cell_text(columns[name][row]) for name in shown)
        name = row if rows.files is None else rows.files[row]
        return (number + 1, side, name, str(rows.labels[row]), *figures, *cells)

    lines = []
    for number in range(count):
        figures = float(pairs.influence[number]), float(pairs.standard_error[number])
        memorised = float(pairs.memorisation[number])
        test, seen = int(pairs.test[number]), int(pairs.train[number])
        lines.append(line(owed.rows, number, "test", test, *figures, None))
        lines.append(line(train, number, "training", seen, None, None, memorised))
    columns = (
        Column("pair"),
        Column("set"),
        Column("row"),
        Column("label"),
        Column("influence", ".2f"),
        Column("±", ".2f"),
        Column("memorisation", ".2f"),
        *(Column(name) for name in shown),
    )
    return Table(columns, tuple(lines), "The strongest pairs, each test example first.")
