"""What `jaxinf memorisation` found, as a file and as chapters of a report."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from jaxinf.cli.memorisation_pair_findings import pairs_section
from jaxinf.cli.memorisation_search import Found, top_overlap
from jaxinf.cli.value_outputs import storable, write_table
from jaxinf.cli.valued import cell_text, is_picture
from jaxinf.errors import require_extra
from jaxinf.evaluation import detection_curve
from jaxinf.report.figures import histogram, image_png, line_chart
from jaxinf.report.sections import Column, Example, Figure, Section, Strip, Table

_LISTED, _PICTURED, _COLUMNS = 25, 27, 5
_OF_ESTIMATE = {
    "left-out": "1 − p of the label in models that did not see the example: high for what the "
    "other examples do not teach. It cannot tell what is learnt by heart from what is not learnt "
    "at all.",
    "seen-less-left-out": "how much higher p of the label is in models that saw the example; "
    "noisy with few models, but better than a loss at naming the very most memorised.",
    "early-loss": "1 − p of the label in models that stopped early. No example is left out: a "
    "plain loss, which ranks nearly as well.",
    "early-gradient": "the squared norm of the example's own gradient in models that stopped "
    "early.",
    "early-step": "how far p of the label rises by one step on the example alone, in models that "
    "stopped early.",
    "early-curvature": "the influence function of the example on its own margin, in models that "
    "stopped early.",
}


def write_scores(folder: Path, found: Found) -> Path:
    """Write `scores.parquet`.

    Raises:
        InputError: the folder cannot be written to.
    """
    pyarrow = require_extra("pyarrow", "cli")
    rows = found.rows
    rank = np.empty(len(rows), np.int64)
    rank[found.order] = np.arange(1, len(rows) + 1)
    columns: dict[str, Any] = {"row": np.arange(len(rows))}
    if rows.files is not None:
        columns["file"] = list(rows.files)
    columns |= {"label": storable(rows.labels), "rank": rank, "estimate": found.estimate}
    if found.right is not None and found.probability is not None:
        columns |= {
            "memorisation": found.right.scores,
            "standard_error": found.right.standard_errors,
            "right_when_seen": found.right.mean_in,
            "right_when_left_out": found.right.mean_out,
            "memorisation_by_probability": found.probability.scores,
            "standard_error_by_probability": found.probability.standard_errors,
            "models_seen": found.right.num_in,
            "models_left_out": found.right.num_out,
        }
    return write_table(folder / "scores.parquet", pyarrow.table(columns))


def memorised_table(found: Found, count: int = _LISTED) -> Table:
    """The most memorised rows, with the first of their columns where they are of a table."""
    rows, names = found.rows, found.rows.files or range(len(found.rows))
    shown = list((rows.columns or {}).items())[: _COLUMNS if count > 5 else 0]
    measured: tuple[Column, ...] = ()
    if found.right is not None:
        measured = Column("memorisation", ".2f"), Column("±", ".2f")
    columns = (
        Column("file" if rows.files is not None else "row"),
        Column("label"),
        *measured,
        Column(found.asked.estimate.value, ".4g"),
        *(Column(name) for name, _ in shown),
    )

    def cells(row: int) -> tuple[Any, ...]:
        of_models = ()
        if found.right is not None:
            pair = found.right.scores[row], found.right.standard_errors[row]
            of_models = tuple(float(v) if np.isfinite(v) else None for v in pair)
        return (
            names[row],
            str(rows.labels[row]),
            *of_models,
            float(found.estimate[row]),
            *(cell_text(column[row]) for _, column in shown),
        )

    caption = "The most memorised training examples" + ("." if found.right else ", by estimate.")
    return Table(columns, tuple(cells(row) for row in found.order[:count].tolist()), caption)


def memorisation_sections(found: Found) -> list[Section]:
    """The report's chapters."""
    sections = [_overview(found), _most(found)]
    if found.owed is not None:
        sections.append(pairs_section(found.rows, found.owed))
    return sections if found.right is None else [*sections, _agreement(found)]


def _overview(found: Found) -> Section:
    rows, asked = found.rows, found.asked
    facts = [
        ("training examples", f"{len(rows):,}"),
        *([] if found.test_rows is None else [("test examples", f"{len(found.test_rows):,}")]),
        ("classes", f"{len(found.classes):,}"),
        ("features", found.note),
        ("network", f"one hidden layer of {asked.hidden}, {asked.epochs} epochs"),
        (f"estimate: {asked.estimate.value}, {asked.models} models", _OF_ESTIMATE[asked.estimate]),
    ]
    spread, label = found.estimate, asked.estimate.value
    if found.right is not None:
        known = np.isfinite(found.right.scores)
        spread, label = found.right.scores[known], "memorisation score"
        median = float(np.nanmedian(found.right.standard_errors))
        facts.append(("median standard error of a score", f"{median:.3f}"))
        if not known.all():
            facts.append(("in every subset or in none: no score", f"{int((~known).sum()):,}"))
    return Section(
        title="How much is known by heart",
        text=(
            found.summary,
            "An example is memorised if models are right about it when they were trained on it and "
            "wrong when it was left out. It need not be a fault: rare kinds of examples have to be "
            "memorised, and wrong labels are. Look before you remove. A score near 0 means that "
            "the others teach it, or that it is not learnt even when it is seen.",
        ),
        tables=(Table((Column("of this run"), Column("")), tuple(facts)),),
        figures=(
            Figure(
                histogram({"training examples": spread}, xlabel=label),
                "How the scores spread. The outermost bars hold what lies beyond.",
            ),
        ),
    )


def _most(found: Found) -> Section:
    rows, title = found.rows, "The most memorised examples"
    if rows.inputs is None or not is_picture(rows.inputs[0]):
        return Section(title, tables=(memorised_table(found),))
    cards = []
    for row in found.order[:_PICTURED].tolist():
        where = PurePath(rows.files[row]).name if rows.files is not None else f"row {row}"
        figure = f"{found.asked.estimate.value} {found.estimate[row]:.3g}"
        if found.right is not None:
            error = found.right.standard_errors[row]
            figure = f"{found.right.scores[row]:.2f} ± {error:.2f}"
        cards.append(
            Example((str(rows.labels[row]), figure, where), image_png(rows.inputs[row]), "")
        )
    return Section(title, strips=(Strip((("Most memorised first", tuple(cards)),)),))


def _agreement(found: Found) -> Section:
    assert found.right is not None
    assert found.reliability is not None
    top = max(1, min(100, len(found.rows) // 10))
    agreement = found.agreement
    said = "they cannot be compared: all retrained scores are alike"
    if agreement is not None:
        said = f"Spearman {agreement:.3f}"
    full = found.reliability.full
    trust = "unknown" if not np.isfinite(full) else f"{full:.3f}"
    is_top = np.isin(np.arange(len(found.rows)), found.order[:top])
    return Section(
        title="Does the estimate agree with retraining?",
        text=(
            f"{found.asked.estimate.value} ({found.asked.models} models) against "
            f"{found.asked.retrain:,} retrained models: {said}. Another {found.asked.retrain:,} "
            f"models would agree with these by {trust} (from two halves). Of the {top} most "
            f"memorised by retraining, the estimate has {top_overlap(found, top):.0%} among its "
            f"{top} highest. Scores that many examples share hold any rank correlation below 1.",
        ),
        figures=(
            Figure(
                line_chart(
                    {found.asked.estimate.value: detection_curve(found.estimate, is_top)},
                    xlabel="examples inspected, highest estimate first",
                    ylabel=f"found of the {top} most memorised",
                    chance=([0, 1], [0, 1]),
                    percent=True,
                ),
                "How many of the most memorised, by retraining, the estimate finds.",
            ),
        ),
    )
