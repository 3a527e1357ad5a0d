"""What `jaxinf value` found, as chapters of a report."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from jaxinf.cli.features import Sets
from jaxinf.cli.rows import Rows
from jaxinf.cli.valuators import Valued
from jaxinf.evaluation import detection_auc, detection_curve
from jaxinf.report.figures import histogram, image_png, line_chart
from jaxinf.report.heat_map import heat_map
from jaxinf.report.sections import Column, Example, Figure, Mark, Section, Strip, Table

# rows of a table; pictures come nine to a line
_LISTED, _PICTURED = 12, 18
_LISTED_COLUMNS = 6
_MEANING = {
    "distance": "distance between the two sets, in the units of the cost",
    "num_iterations": "iterations of the solver",
    "marginal_error": "how far the plan's sums miss the masses that were given (0: not at all)",
    "label_error": "the same of the distances between classes, the worst of them",
    "finite_difference_error": "how far values miss the change of this distance when mass is truly "
    "moved and the problem solved again by the same solver, as a share of their range",
    "dual_gap": "what the plan costs beside the dual value, as a share of it (it misses its masses "
    "by the marginal error, so this bounds nothing)",
    "epsilon": "strength of the entropic term, in the units of the cost",
    "contrast": "share of the mean cost that was taken off the distance",
    "squared_mmd": "discrepancy between the two sets (0: none)",
    "bandwidth": "width of the kernel",
    "num_evaluations": "models trained, or subsets tried",
    "reliability": "share of the variance among values that is no sampling noise (1: all of it)",
}
_STOPPED_EARLY = (
    "The solver stopped before it reached the accuracy that was asked for: take differences "
    "between near values for noise, or ask for a larger --epsilon."
)


def values_section(valued: Valued, train: Rows, sets: Sets, kept: np.ndarray) -> Section:
    """How the values spread, and what they were computed from."""
    values = valued.values
    rows = (
        ("training examples", f"{len(train):,}"),
        ("validation examples", f"{len(sets.valid_labels):,}"),
        ("classes", f"{len(sets.names):,}"),
        ("features", sets.note),
        ("method", valued.method),
        ("lowest, median and highest value", ", ".join(f"{v:.4g}" for v in _spread(values))),
        ("kept", f"{int(kept.sum()):,} of {len(kept):,}"),
    )
    groups = {"training examples": values}
    if train.is_bad is not None:
        groups = {"sound": values[~train.is_bad], "marked as faulty": values[train.is_bad]}
    return Section(
        title="What each training example is worth",
        text=(
            "Every training example has a value, judged by the validation set: higher is more "
            "worth having. Values compare the examples of one run. Between methods, or between "
            "data sets, their scales differ.",
            *((_STOPPED_EARLY,) if valued.converged is False and not valued.soft else ()),
            *valued.warnings,
        ),
        tables=(Table((Column("of this run"), Column("")), rows),),
        figures=(
            Figure(
                histogram(groups, xlabel=f"value by {valued.method}"),
                "How the values spread. The outermost bars hold what lies beyond.",
            ),
        ),
    )


def detection_section(valued: Valued, is_bad: np.ndarray) -> tuple[Section, dict[str, float]]:
    """Do the lowest values find the faults that the user marked?"""
    suspicion, share = -valued.values, float(is_bad.mean())
    auc, curve = detection_auc(suspicion, is_bad), detection_curve(suspicion, is_bad)
    count = int(is_bad.sum())
    early = float(curve[1][count])
    section = Section(
        title="Do low values find the marked faults?",
        text=(
            f"{count:,} of {len(is_bad):,} training examples are marked as faulty. Inspecting that "
            f"many, those of lowest value first, finds {early:.0%} of them; a random order finds "
            f"{share:.0%}. The chance that a faulty example has a lower value than a sound one is "
            f"{auc:.3f} (AUC; 0.5 is chance, 1 perfect).",
        ),
        figures=(
            Figure(
                line_chart(
                    {valued.method: curve},
                    xlabel="training examples inspected, lowest value first",
                    ylabel="faults found",
                    chance=([0, 1], [0, 1]),
                    percent=True,
                ),
                "Faults found against examples inspected.",
            ),
        ),
    )
    return section, {"auc": auc, "found_at_true_count": early}


def examples_section(valued: Valued, train: Rows) -> Section:
    """The lowest and the highest values, as pictures or rows."""
    order = np.argsort(valued.values, kind="stable")
    count = _PICTURED if train.columns is None else _LISTED
    ends = ("Lowest values", order[:count]), ("Highest values", order[::-1][:count])
    section = Section(
        title="The least and the most worth having",
        text=(
            "Look at the lowest values first: wrong labels, damaged inputs and examples that have "
            "nothing to do with the task gather there, beside rare ones that are right.",
        ),
    )
    if train.columns is not None:
        tables = tuple(_rows_table(valued, train, rows, heading) for heading, rows in ends)
        return replace(section, tables=tables)
    return replace(
        section,
        strips=tuple(Strip(((heading, _cards(valued, train, rows)),)) for heading, rows in ends),
        legend=(("bad", "marked as faulty"),) if train.is_bad is not None else (),
    )


def label_section(valued: Valued, names: Mapping[int, str]) -> Section | None:
    """How far the classes lie apart; None for a method that has no such distances."""
    if valued.label_distances is None:
        return None
    distances, train, valid = valued.label_distances
    return Section(
        title="How far the classes lie apart",
        text=(
            "The distance between a class of the training set and one of the validation set: what "
            "it costs to move the one's examples onto the other's. A class should be nearest to "
            "itself. Where it is not, its labels, or the validation set's, deserve a look; two "
            "classes that are near to each other are hard to tell apart by these features.",
        ),
        figures=(
            Figure(
                heat_map(
                    distances,
                    [names[label] for label in train.tolist()],
                    [names[label] for label in valid.tolist()],
                    ylabel="training class",
                    xlabel="validation class",
                    value_label="distance",
                ),
                "Label-to-label distances: light is near.",
            ),
        ),
    )


def certificate_section(valued: Valued) -> Section | None:
    """How far to trust the numbers; None for a method that says nothing of that."""
    if not valued.figures and valued.converged is None:
        return None
    rows = tuple(
        (name.replace("_", " "), figure, _MEANING.get(name, ""))
        for name, figure in valued.figures.items()
    )
    verdict = ()
    if valued.soft:
        verdict = (
            "These values come from a soft solve, which finds bad examples better than an exact "
            "one and stops early by design: they rank examples, and are no derivatives of the "
            "distance. Ask for --solver balanced where those are wanted.",
        )
    elif valued.converged is not None:
        verdict = (
            "The solver reached the accuracy that was asked for."
            if valued.converged
            else _STOPPED_EARLY,
        )
    return Section(
        title="How far to trust these values",
        text=verdict,
        tables=(
            Table(
                (Column("figure"), Column("value", ".4g"), Column("what it says")),
                rows,
                "What the method says about its own accuracy.",
            ),
        )
        if rows
        else (),
    )


def _cards(valued: Valued, train: Rows, rows: np.ndarray) -> tuple[Example, ...]:
    return tuple(_card(valued, train, row) for row in rows.tolist())


def _card(valued: Valued, train: Rows, row: int) -> Example:
    lines = [str(train.labels[row]), f"value {valued.values[row]:.4g}", f"row {row}"]
    if train.files is not None:
        # the folder is the label
        lines[2] = PurePath(train.files[row]).name
    image = None
    if train.inputs is not None and is_picture(train.inputs[row]):
        image = image_png(train.inputs[row])
    mark: Mark = "bad" if train.is_bad is not None and train.is_bad[row] else ""
    return Example(tuple(lines), image, mark)


def _rows_table(valued: Valued, train: Rows, rows: np.ndarray, heading: str) -> Table:
    """Rows of a table with their values, and the first of their columns."""
    assert train.columns is not None
    shown = list(train.columns.items())[:_LISTED_COLUMNS]
    marked = () if train.is_bad is None else (Column("faulty"),)
    left = len(train.columns) - len(shown)
    columns = (Column("row", ","), Column("label"), Column("value", ".4g"), *marked)
    return Table(
        (*columns, *(Column(name) for name, _ in shown)),
        tuple(
            (
                row,
                str(train.labels[row]),
                float(valued.values[row]),
                *(() if train.is_bad is None else ("yes" if train.is_bad[row] else "no",)),
                *(cell_text(column[row]) for _, column in shown),
            )
            for row in rows.tolist()
        ),
        f"{heading}." + (f" {left} more columns are in the file." if left else ""),
    )


def is_picture(row: np.ndarray) -> bool:
    """Whether one row of inputs can be looked at: [H, W] or [H, W, c], no side under 4.

    Example:
        >>> is_picture(np.zeros((8, 8, 3))), is_picture(np.zeros(8))
        (True, False)
    """
    flat = row.ndim == 2 or (row.ndim == 3 and row.shape[-1] in (1, 3, 4))
    return flat and min(row.shape[:2]) >= 4


def cell_text(value: np.ndarray) -> str:
    """A number or text of a table in few characters."""
    if np.ndim(value):
        return f"[{np.ravel(value)[0]:.3g}, …]"
    return str(value)[:40] if np.asarray(value).dtype.kind == "U" else f"{value:.4g}"


def _spread(values: np.ndarray) -> list[float]:
    return [float(np.min(values)), float(np.median(values)), float(np.max(values))]
