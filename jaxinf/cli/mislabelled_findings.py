"""What `jaxinf mislabelled` found, as files and as chapters of a report."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from jaxinf.cli.mislabelled_search import Found
from jaxinf.cli.value_outputs import storable, write_cleaned, write_table
from jaxinf.cli.valued import cell_text, is_picture
from jaxinf.errors import require_extra
from jaxinf.evaluation import average_precision, detection_auc, detection_curve
from jaxinf.report.figures import histogram, image_png, line_chart
from jaxinf.report.heat_map import heat_map
from jaxinf.report.sections import Column, Example, Figure, Mark, Section, Strip, Table

_LISTED, _PICTURED, _COLUMNS, _MOST_CLASSES = 25, 27, 5, 30


def write_suspects(folder: Path, found: Found) -> tuple[Path, ...]:
    """Write `suspects.parquet`, `suggested.csv` and the cleaned list.

    Raises:
        InputError: the folder cannot be written to.
    """
    pyarrow = require_extra("pyarrow", "cli")
    rows, suspects = found.rows, found.suspects
    rank = np.empty(len(rows), np.int64)
    rank[suspects.order] = np.arange(1, len(rows) + 1)
    own = np.searchsorted(found.classes, rows.labels)
    columns: dict[str, Any] = {"row": np.arange(len(rows))}
    if rows.files is not None:
        columns["file"] = list(rows.files)
    columns |= {
        "label": storable(rows.labels),
        "suspicion": suspects.suspicion,
        "rank": rank,
        "flagged": suspects.is_flagged,
        "suggested": storable(_suggested(found)),
        "probability_of_label": np.exp(found.out_of_fold[np.arange(len(rows)), own]),
        "probability_of_suggested": np.exp(found.out_of_fold.max(axis=1)),
    }
    if rows.is_bad is not None:
        columns["is_faulty"] = rows.is_bad
    table = pyarrow.table(columns)
    order = suspects.order[: int(suspects.is_flagged.sum())]
    names = [name for name in ("row", "file", "label", "suggested") if name in columns]
    return (
        write_table(folder / "suspects.parquet", table),
        write_table(folder / "suggested.csv", table.select(names).take(pyarrow.array(order))),
        write_cleaned(folder, rows, ~suspects.is_flagged),
    )


def suspects_table(found: Found, count: int = _LISTED) -> Table:
    """The most suspect rows, with the first of their columns where they are of a table."""
    rows, names = found.rows, found.rows.files or range(len(found.rows))
    suggested = _suggested(found)
    shown = list((rows.columns or {}).items())[: _COLUMNS if count > 5 else 0]
    marked = () if rows.is_bad is None else (Column("wrong"),)
    columns = (
        Column("file" if rows.files is not None else "row"),
        Column("label"),
        Column("suggested"),
        Column("suspicion", ".4g"),
        *marked,
    )
    return Table(
        (*columns, *(Column(name) for name, _ in shown)),
        tuple(
            (
                names[row],
                str(rows.labels[row]),
                str(suggested[row]),
                float(found.suspects.suspicion[row]),
                *(() if rows.is_bad is None else ("yes" if rows.is_bad[row] else "no",)),
                *(cell_text(column[row]) for _, column in shown),
            )
            for row in found.suspects.order[:count].tolist()
        ),
        "The most suspect training labels.",
    )


def mislabelled_sections(found: Found) -> list[Section]:
    """The report's chapters."""
    sections = [_overview(found)]
    if found.rows.is_bad is not None:
        sections.append(_detection(found, found.rows.is_bad))
    return [*sections, _worst(found), _rates(found)]


def _overview(found: Found) -> Section:
    rows, suspicion = found.rows, found.suspects.suspicion
    facts = (
        ("training examples", f"{len(rows):,}"),
        ("classes", f"{len(found.classes):,}"),
        ("features", found.note),
        ("method", found.asked.method),
        ("model", found.asked.model.value),
        ("flagged", f"{int(found.suspects.is_flagged.sum()):,}"),
    )
    groups = {"training examples": suspicion}
    if rows.is_bad is not None:
        groups = {"right": suspicion[~rows.is_bad], "known to be wrong": suspicion[rows.is_bad]}
    return Section(
        title="How suspect the labels are",
        text=(
            found.summary,
            "A suspect label is not a wrong one: rare and hard examples that are right look alike. "
            "Look at them before you remove them. Scores compare the examples of one run.",
        ),
        tables=(Table((Column("of this run"), Column("")), facts),),
        figures=(
            Figure(
                histogram(groups, xlabel=f"suspicion by {found.asked.method}"),
                "How the scores spread. The outermost bars hold what lies beyond.",
            ),
        ),
    )


def _detection(found: Found, is_bad: np.ndarray) -> Section:
    suspicion, count = found.suspects.suspicion, int(is_bad.sum())
    curve, share = detection_curve(suspicion, is_bad), float(is_bad.mean())
    return Section(
        title="Are the wrong labels found?",
        text=(
            f"{count:,} of {len(is_bad):,} labels are known to be wrong. Inspecting that many, the "
            f"most suspect first, finds {curve[1][count]:.0%} of them; a random order finds "
            f"{share:.0%}. AUC {detection_auc(suspicion, is_bad):.3f} (0.5 is chance), average "
            f"precision {average_precision(suspicion, is_bad):.3f} (chance: {share:.3f}).",
        ),
        figures=(
            Figure(
                line_chart(
                    {found.asked.method: curve},
                    xlabel="labels inspected, most suspect first",
                    ylabel="wrong labels found",
                    chance=([0, 1], [0, 1]),
                    percent=True,
                ),
                "Wrong labels found against labels inspected.",
            ),
        ),
    )


def _worst(found: Found) -> Section:
    rows, text = found.rows, ("What models that did not see the label would say stands beside it.",)
    pictures = rows.inputs is not None and is_picture(rows.inputs[0])
    if not pictures:
        return Section("The most suspect labels", text, tables=(suspects_table(found),))
    suggested = _suggested(found)
    cards = []
    for row in found.suspects.order[:_PICTURED].tolist():
        where = PurePath(rows.files[row]).name if rows.files is not None else f"row {row}"
        lines = (f"{rows.labels[row]} → {suggested[row]}", where)
        mark: Mark = "bad" if rows.is_bad is not None and rows.is_bad[row] else ""
        assert rows.inputs is not None
        cards.append(Example(lines, image_png(rows.inputs[row]), mark))
    return Section(
        "The most suspect labels",
        (*text, "Under each picture: the label as given → as suggested."),
        strips=(Strip((("Most suspect first", tuple(cards)),)),),
        legend=(("bad", "known to be wrong"),) if rows.is_bad is not None else (),
    )


def _rates(found: Found) -> Section:
    entries = [
        ("confident joint", found.joint.rate, "noise depends on the class, not on the example"),
    ]
    if found.mixture is not None:
        entries.append(("mixture", found.mixture.rate, "scores of right and wrong are two heaps"))
    table = Table(
        (Column("estimate"), Column("share of wrong labels", ".1%"), Column("it assumes")),
        tuple(entries),
        "Where the two disagree, trust neither: look at the rows.",
    )
    figures = ()
    joint = found.joint.joint
    if joint is not None and len(joint) <= _MOST_CLASSES:
        given = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
        labels = [str(label) for label in found.classes]
        figures = (
            Figure(
                heat_map(
                    given,
                    labels,
                    labels,
                    ylabel="label as given",
                    xlabel="class as estimated",
                    value_label="share of the row",
                ),
                "Which class is mistaken for which, by the confident joint.",
            ),
        )
    return Section("How many labels are wrong", tables=(table,), figures=figures)


def _suggested(found: Found) -> np.ndarray:
    assert found.suspects.suggested is not None
    return found.classes[found.suspects.suggested]
