"""What `jaxinf leakage` found: a table per test example, and the pairs as pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.cli.leakage_shared import Found
from jaxinf.errors import InputError, require_extra
from jaxinf.report.figures import histogram, image_png
from jaxinf.report.sections import Column, Example, Figure, Section, Strip, Table

_PAIRS = 40
# contrasts beyond are drawn at the edge
_EDGE = 0.995


def summary(found: Found) -> str:
    """One or two sentences."""
    leaks = found.leaks
    count = int(leaks.is_leak.sum())
    of_sources = len(np.unique(leaks.source[leaks.is_leak]))
    said = (
        f"{count:,} of {len(leaks.source):,} test examples are called leaks of {of_sources:,} "
        f"among {found.num_train:,} training examples, by {found.method}, at a false-discovery "
        f"rate of {leaks.fdr:g}."
    )
    if leaks.fewest > 1:
        said += (
            f" With {leaks.num_calibration:,} examples to calibrate by, fewer than "
            f"{leaks.fewest:,} leaks cannot be called at all: look at the smallest p-values too."
        )
    return said


def leaks_table(found: Found, count: int) -> Table:
    """The most certain leaks, for the terminal and the report."""
    leaks = found.leaks
    rows = tuple(
        (
            row,
            found.query_card(row)[0],
            found.source_card(int(leaks.source[row]))[0],
            float(leaks.score[row]),
            float(leaks.p_values[row]),
            float(leaks.q_values[row]),
            "yes" if leaks.is_leak[row] else "no",
        )
        for row in _order(found)[:count].tolist()
    )
    columns = (
        Column("test row", ","),
        Column("test example"),
        Column("best match in training"),
        Column("score", ".4g"),
        Column("p", ".2g"),
        Column("q", ".2g"),
        Column("leak"),
    )
    return Table(columns, rows, "The test examples that stand out most.")


def leak_sections(found: Found) -> list[Section]:
    """The report's chapters: pairs, how the statistics spread, what it rests on."""
    order = _order(found)
    called = order[found.leaks.is_leak[order]]
    shown = (called if len(called) else order)[:_PAIRS].tolist()
    more = len(called) - len(shown)
    pairs = Section(
        title="Leaks and their sources" if len(called) else "No leak is called; the nearest pairs",
        text=(
            "Left, the test example; right, the training example that it would be a copy of.",
            *((f"The first {len(shown)}; {more} more are in the table.",) if more > 0 else ()),
            *(
                (
                    "A negative influence says that training on the match raises the test "
                    "example's loss: the two carry labels that disagree.",
                )
                if found.signed
                else ()
            ),
        ),
        tables=(leaks_table(found, _PAIRS),),
        strips=tuple(_pair(found, row) for row in shown),
        legend=(("query", "test example"),),
    )
    return [pairs, _spread(found), _trust(found)]


def write_leaks(folder: Path, found: Found, file_format: str) -> Path:
    """Write `leaks.csv` or `leaks.parquet`, a row per test example in their order.

    Columns `row`, `source`, `is_leak`, `q_value`, `p_value`, `score`, `statistic`, and `file`,
    `source_file`, `label`, `source_label` or `labels_disagree` where there are such.

    Raises:
        InputError: the folder cannot be written to.
        MissingExtraError: pyarrow is not installed.
    """
    leaks = found.leaks
    columns: dict[str, Any] = {
        "row": np.arange(len(leaks.source)),
        "source": leaks.source,
        "is_leak": leaks.is_leak,
        "q_value": leaks.q_values,
        "p_value": leaks.p_values,
        "score": leaks.score,
        "statistic": leaks.statistic,
    }
    table = require_extra("pyarrow", "cli").table(columns | dict(found.columns))
    file = folder / f"leaks.{file_format}"
    writer = require_extra(f"pyarrow.{file_format}", "cli")
    write = writer.write_csv if file_format == "csv" else writer.write_table
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(table, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error})") from error
    return file


def _order(found: Found) -> np.ndarray:
    """Rows, the smallest p-values first; of equal ones the larger statistic."""
    return np.lexsort((-found.leaks.statistic, found.leaks.p_values))


def _pair(found: Found, row: int) -> Strip:
    leaks = found.leaks
    source = int(leaks.source[row])
    lines = (f"score {leaks.score[row]:+#.3g}",)
    if found.signed and leaks.score[row] < 0:
        lines += ("labels disagree",)
    match = _example(*found.source_card(source), lines)
    said = (f"q {leaks.q_values[row]:.2g}",)
    return Strip(
        (("Best match in training", (match,)),), _example(*found.query_card(row), said, "query")
    )


def _example(caption: str, picture: Any, lines: tuple[str, ...], mark: Any = "") -> Example:
    return Example((caption, *lines), None if picture is None else image_png(picture), mark)


def _spread(found: Found) -> Section:
    groups = {"test examples": found.leaks.statistic}
    if found.null is not None:
        groups["calibration"] = found.null.statistic
    together = np.concatenate(list(groups.values()))
    finite = together[np.isfinite(together)]
    edge = float(np.quantile(finite, _EDGE)) if finite.size else 1.0
    lowest = float(finite.min()) if finite.size else 0.0
    clipped = {name: np.clip(values, lowest, edge) for name, values in groups.items()}
    return Section(
        title="How far the best match stands out",
        text=(
            "Leaks lie to the right of what calibrates. Where the two groups look alike, there "
            "is nothing to be found by this comparison; where clean test examples lie elsewhere "
            "than the calibration, the rate is not held.",
        ),
        figures=(
            Figure(
                histogram(clipped, xlabel="statistic"), "The rightmost bar holds what is beyond."
            ),
        ),
    )


def _trust(found: Found) -> Section:
    leaks = found.leaks
    rows = (
        ("false-discovery rate asked for", f"{leaks.fdr:g}"),
        ("p-values rest on", found.calibration),
        ("fewest leaks that can be called", f"{leaks.fewest:,}"),
        ("test examples", f"{len(leaks.source):,}"),
        ("training examples", f"{found.num_train:,}"),
    )
    return Section(
        title="How far to trust it",
        text=(
            "A false discovery is a test example that only looks like a training example: at the "
            "rate asked for, that share of the leaks is expected to be such, if what calibrates "
            "is like the clean test examples. A leak that was cropped, turned or drawn over may "
            "be missed: absence here is no proof.",
            *found.warnings,
        ),
        tables=(Table((Column("of this run"), Column("")), rows),),
    )
