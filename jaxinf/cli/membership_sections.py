"""A membership report as chapters of a page: the verdict first, then what it rests on."""

from collections.abc import Iterable

import numpy as np

from jaxinf.evaluation.intervals import Interval
from jaxinf.membership import MembershipReport, ScoreFigures
from jaxinf.report.figures import histogram
from jaxinf.report.roc_chart import roc_chart
from jaxinf.report.sections import Cell, Column, Figure, Section, Table


def judgement_section(found: MembershipReport, title: str, text: Iterable[str] = ()) -> Section:
    """Verdict, cautions, all attacks and controls with their intervals, and their curves.

    Args:
        found: what `membership_report` said.
        title: of the chapter.
        text: what was compared, before the verdict.
    """
    return Section(
        title=title,
        text=(*text, sentence(found.verdict.text), *map(sentence, found.cautions)),
        tables=(figures_table(found), differences_table(found)),
        figures=(
            roc_figure(found),
            *(score_figure(attack, found.is_member) for attack in found.attacks),
        ),
    )


def roc_figure(found: MembershipReport, note: str = "") -> Figure:
    """ROC curves of all attacks and controls on logarithmic axes."""
    every = (*found.attacks, *found.controls)
    chart = roc_chart(
        {f.name: (f.roc.fpr, f.roc.tpr) for f in every},
        lowest=min(0.1, 1 / int((~found.is_member).sum())),
        baselines={f.name for f in found.controls},
    )
    return Figure(
        chart,
        f"{note}ROC curves on logarithmic axes. Dashed: blind controls, which never saw the "
        "model. Left of 1 % is where a claim about single pairs is made or lost.",
    )


def score_figure(
    attack: ScoreFigures, is_member: np.ndarray, others: str = "non-members"
) -> Figure:
    """How the scores of one attack spread on both sides."""
    groups = {"members": attack.scores[is_member], others: attack.scores[~is_member]}
    return Figure(
        histogram(groups, xlabel=f"score by {attack.name}"),
        f"Scores by {attack.name}. The outermost bars hold what lies beyond.",
    )


def figures_table(found: MembershipReport, where: str = "") -> Table:
    """Every attack and control, a row each, with intervals; `where` begins the note."""
    every = (*found.attacks, *found.controls)
    rates = [rate for rate in every[0].tpr if any(f.tpr[rate] is not None for f in every)]
    target = every[0].calibrated.target_fpr
    columns = (
        Column("score"),
        Column("what it is"),
        Column("AUC"),
        *(Column(f"TPR at {100 * rate:g} % FPR") for rate in rates),
        Column(f"FPR realised, {100 * target:g} % aimed at"),
        Column("accuracy there", ".3f"),
        Column("best accuracy (oracle)", ".3f"),
        Column("spread of AUC over attack seeds"),
    )
    rows = tuple(
        (
            f.name,
            "attack" if f.role == "attack" else "blind control",
            show_interval(f.auc),
            *(_show_rate(f.tpr[rate]) for rate in rates),
            show_interval(f.calibrated.fpr),
            f.calibrated.accuracy,
            f.oracle.accuracy,
            None if f.seeds is None else f"{f.seeds.mean:.3f} ± {f.seeds.std:.3f}",
        )
        for f in every
    )
    return Table(
        columns,
        rows,
        f"{where}AUC: the chance that a member scores above a non-member (0.5 is chance); "
        f"brackets: {found.confidence:.0%} intervals. Accuracy there: balanced, at a threshold "
        "set on non-members alone. The oracle's threshold looks at the answers: nobody can have "
        "it.",
    )


def differences_table(found: MembershipReport) -> Table:
    """Attacks against controls and one another, on the same pairs."""
    rows = tuple((d.first, d.second, show_interval(d.auc, "+.3f")) for d in found.differences)
    return Table(
        (Column("attack"), Column("against"), Column("difference of AUC")),
        rows,
        "Paired over the pairs: an interval that holds 0 does not tell the two apart. An attack "
        "that is not above every blind control is no evidence of membership.",
    )


def show_interval(interval: Interval, style: str = ".3f") -> str:
    """An estimate with its interval.

    Example:
        >>> show_interval(Interval(0.5, 0.25, 0.75, 0.95))
        '0.500 [0.250, 0.750]'
    """
    parts = (format(end, style) for end in (interval.estimate, interval.low, interval.high))
    return "{} [{}, {}]".format(*parts)


def _show_rate(interval: Interval | None) -> Cell:
    return None if interval is None else show_interval(interval)


def sentence(text: str) -> str:
    """A capital to begin with, and a full stop to end with.

    Example:
        >>> sentence("no evidence")
        'No evidence.'
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
