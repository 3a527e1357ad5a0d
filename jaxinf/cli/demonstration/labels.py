"""Which training labels are wrong?"""

from collections.abc import Sequence

import jax
import numpy as np

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.cards import LEGEND, train_cards
from jaxinf.cli.demonstration.contenders import NEIGHBOURS, Contender
from jaxinf.cli.demonstration.subject import Subject
from jaxinf.evaluation import detection_auc, detection_curve
from jaxinf.influence import group_queries
from jaxinf.report.figures import histogram, line_chart
from jaxinf.report.sections import Column, Figure, Section, Strip, Table

_NEIGHBOURS = 10
_SHOWN = 8


def find_wrong_labels(subject: Subject, contenders: Sequence[Contender], begin: Begin) -> Answer:
    """Rank training examples by how suspicious they are: do the wrong labels come first?

    Influence is on the mean loss of the trusted examples, taken as one query.
    """
    trusted = group_queries(subject.trusted)
    suspicion: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    for contender in contenders:
        begin(f"wrong labels: {contender.label}")
        found = contender.score(subject, trusted)[0]
        scores[contender.name] = found
        suspicion[contender.label] = -found if contender.signed else found
    influence = list(suspicion)
    begin("wrong labels: baselines")
    baselines = {"training loss": training_losses(subject)}
    for contender in NEIGHBOURS:
        where = contender.label.removeprefix("nearest neighbour ")
        baselines[f"{_NEIGHBOURS} neighbours disagree {where}"] = disagreement(subject, contender)
    suspicion |= baselines

    auc = {label: detection_auc(values, subject.is_wrong) for label, values in suspicion.items()}
    curves = {
        label: detection_curve(values, subject.is_wrong) for label, values in suspicion.items()
    }
    share = float(subject.is_wrong.mean())
    early = {label: _found_at(curve, share) for label, curve in curves.items()}
    # whoever inspects labels starts at the top and has a budget: that decides, then the AUC
    merit = {label: (early[label], auc[label]) for label in suspicion}
    winner = max(merit, key=lambda label: merit[label])
    best = max(influence, key=lambda label: merit[label])
    verdict = (
        "No baseline finds more."
        if winner in influence
        else f"Influence loses here: {winner}, without any influence, finds {early[winner]:.0%} "
        f"(AUC {auc[winner]:.3f})."
    )
    count = int(subject.is_wrong.sum())
    summary = (
        f"{count} of {len(subject.is_wrong):,} training labels are wrong. Inspecting that many "
        f"examples, the best influence order, {best}, finds {early[best]:.0%} of them (AUC "
        f"{auc[best]:.3f}). {verdict}"
    )
    order = np.argsort(-suspicion[best], kind="stable")[:_SHOWN]
    section = Section(
        title="Which training labels are wrong?",
        text=(
            f"A wrong label should hurt. So each training example is scored by its influence on "
            f"the mean loss of {len(subject.trusted['y'])} trusted examples that were held out: "
            "the lower the score, the more suspicious the example. (The paper's released recipe "
            "takes absolute values, so there a high score is the suspicious one.)",
            summary,
        ),
        tables=(
            Table(
                (
                    Column("order of inspection"),
                    Column("kind"),
                    Column("AUC", ".3f", best=True),
                    Column(f"found in the first {share:.0%}", ".0%", best=True),
                ),
                tuple(
                    (
                        label,
                        "influence" if label in influence else "baseline",
                        auc[label],
                        early[label],
                    )
                    for label in suspicion
                ),
                "AUC: the chance that a wrong label looks more suspicious than a right one (0.5 "
                f"is chance, 1 perfect). Last column: the share of the {count} wrong labels found "
                f"by inspecting only as many examples as there are wrong labels ({share:.0%}).",
            ),
        ),
        figures=(
            Figure(
                line_chart(
                    curves,
                    xlabel="training examples inspected, most suspicious first",
                    ylabel="wrong labels found",
                    baselines=baselines,
                    chance=([0, 1], [0, 1]),
                    percent=True,
                ),
                "Wrong labels found against examples inspected. Dashed: what needs no influence.",
            ),
            Figure(
                histogram(
                    {
                        "right labels": suspicion[best][~subject.is_wrong],
                        "wrong labels": suspicion[best][subject.is_wrong],
                    },
                    xlabel=f"suspicion by {best}",
                ),
                f"How {best} tells the two kinds apart: the less they overlap, the better. "
                "The outermost bars hold what lies beyond.",
            ),
        ),
        strips=(
            Strip(
                (
                    (
                        f"The {len(order)} most suspicious training examples by {best}",
                        train_cards(
                            subject,
                            order.tolist(),
                            _influence(best, contenders, scores)[order].tolist(),
                        ),
                    ),
                )
            ),
        ),
        legend=LEGEND[2:],
    )
    return Answer(
        "wrong_labels",
        section,
        summary,
        {label: {"auc": auc[label], "found_early": early[label]} for label in suspicion},
        {"is_wrong": subject.is_wrong, "training-loss": baselines["training loss"], **scores},
    )


def training_losses(subject: Subject) -> np.ndarray:
    """Loss of every training example, as labelled: float[N]."""
    return np.asarray(jax.jit(subject.loss_fn)(subject.params, subject.train))


def disagreement(subject: Subject, contender: Contender) -> np.ndarray:
    """Share of each training example's nearest others whose label differs from its own."""
    labels = subject.train["y"]
    near = contender.run(subject, subject.train, top_k=_NEIGHBOURS + 1).top_indices
    assert near is not None
    others = near != np.arange(len(labels))[:, None]
    return ((labels[near] != labels[:, None]) & others).sum(axis=1) / others.sum(axis=1)


def _influence(
    label: str, contenders: Sequence[Contender], scores: dict[str, np.ndarray]
) -> np.ndarray:
    """The scores behind a label's suspicion, with their own sign."""
    return next(scores[c.name] for c in contenders if c.label == label)


def _found_at(curve: tuple[np.ndarray, np.ndarray], share: float) -> float:
    inspected, found = curve
    return float(found[np.searchsorted(inspected, share - 1e-9)])
