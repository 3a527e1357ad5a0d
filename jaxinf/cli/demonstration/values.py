"""What is each training example worth, before any model is trained?"""

from collections.abc import Sequence

import numpy as np

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.cards import LEGEND, train_cards
from jaxinf.cli.demonstration.contenders import Contender
from jaxinf.cli.demonstration.labels import training_losses
from jaxinf.cli.demonstration.subject import NUM_CLASSES, Subject
from jaxinf.evaluation import detection_auc, detection_curve
from jaxinf.report.figures import histogram, line_chart
from jaxinf.report.heat_map import heat_map
from jaxinf.report.sections import Column, Figure, Section, Strip, Table
from jaxinf.valuation import LavaResult, lava, nearest_validation
from jaxinf.valuation.columns import raw_features
from jaxinf.valuation.knn_shapley import knn_shapley

_LAVA = "LAVA"
_LOSS = "training loss"
_SHOWN = 8


def value_the_data(subject: Subject, contenders: Sequence[Contender], begin: Begin) -> Answer:
    """Value the training digits by the trusted ones: do the wrong labels come out lowest?

    Nothing here but the training loss has seen the network; distances are between raw pixels.
    """
    sets = (
        raw_features(subject.train["x"]),
        subject.train["y"],
        raw_features(subject.trusted["x"]),
        subject.trusted["y"],
    )
    begin("values: LAVA")
    transported = lava(*sets)
    begin("values: nearest trusted digit")
    nearest = nearest_validation(*sets).values
    begin("values: KNN-Shapley")
    found = {
        _LAVA: transported.values,
        "nearest trusted digit, same cost": nearest,
        "KNN-Shapley": knn_shapley(*sets).values,
        _LOSS: -training_losses(subject),
    }
    values = {label: np.asarray(each, np.float64) for label, each in found.items()}
    curves = {label: detection_curve(-each, subject.is_wrong) for label, each in values.items()}
    auc = {label: detection_auc(-each, subject.is_wrong) for label, each in values.items()}
    count, share = int(subject.is_wrong.sum()), float(subject.is_wrong.mean())
    early = {label: float(found[count]) for label, (_, found) in curves.items()}
    summary = _summary(subject, auc, early)
    section = Section(
        title="What is each training example worth?",
        text=(
            "A training set is worth what it costs to transport it onto data that one trusts, and "
            "an example is worth what its mass adds to that cost. LAVA asks it of every training "
            f"digit, by {len(subject.trusted['y'])} trusted digits and without any network: the "
            "lower the value, the less worth having. Beside it stand the distance to the nearest "
            "trusted digit alone, which needs no transport, KNN-Shapley, and the loss of the "
            "trained network.",
            summary,
        ),
        tables=(_table(subject, auc, early, share, count), _trust(transported)),
        figures=(
            Figure(
                line_chart(
                    curves,
                    xlabel="training examples inspected, lowest value first",
                    ylabel="wrong labels found",
                    baselines=set(values) - {_LAVA},
                    chance=([0, 1], [0, 1]),
                    percent=True,
                ),
                "Wrong labels found against examples inspected. Dashed: what is no transport.",
            ),
            Figure(
                histogram(
                    {
                        "right labels": values[_LAVA][~subject.is_wrong],
                        "wrong labels": values[_LAVA][subject.is_wrong],
                    },
                    xlabel="value by LAVA",
                ),
                "How values tell the two kinds apart. The outermost bars hold what lies beyond.",
            ),
            Figure(
                heat_map(
                    transported.label_distances,
                    [str(digit) for digit in transported.train_classes],
                    [str(digit) for digit in transported.valid_classes],
                    ylabel="training class",
                    xlabel="trusted class",
                    value_label="distance",
                ),
                "How far the classes lie apart, wrong labels and all: light is near.",
            ),
        ),
        strips=(
            Strip(
                tuple(
                    (heading, train_cards(subject, rows.tolist(), values[_LAVA][rows].tolist()))
                    for heading, rows in _extremes(values[_LAVA])
                )
            ),
        ),
        legend=LEGEND[2:],
    )
    return Answer(
        "values",
        section,
        summary,
        {label: {"auc": auc[label], "found_early": early[label]} for label in values},
        {"is_wrong": subject.is_wrong}
        | {label.split(",")[0].replace(" ", "-").lower(): each for label, each in values.items()},
    )


def _summary(subject: Subject, auc: dict[str, float], early: dict[str, float]) -> str:
    best = max(auc, key=lambda label: (early[label], auc[label]))
    verdict = (
        "No baseline finds more."
        if early[_LAVA] >= early[best]
        else f"Another order is better here: {best}, with {early[best]:.0%} (AUC {auc[best]:.3f})."
    )
    return (
        f"Inspecting as many digits as have wrong labels ({int(subject.is_wrong.sum())}), those of "
        f"lowest value by LAVA first, finds {early[_LAVA]:.0%} of them (AUC {auc[_LAVA]:.3f}). "
        f"{verdict}"
    )


def _table(
    subject: Subject, auc: dict[str, float], early: dict[str, float], share: float, count: int
) -> Table:
    return Table(
        (
            Column("order of inspection"),
            Column("needs a trained network"),
            Column("AUC", ".3f", best=True),
            Column(f"found in the first {share:.0%}", ".0%", best=True),
        ),
        tuple(
            (label, "yes" if label == _LOSS else "no", auc[label], early[label]) for label in auc
        ),
        "AUC: the chance that a wrong label has a lower value than a right one (0.5 is chance, 1 "
        f"perfect). Last column: the share of the {count} wrong labels found by inspecting only as "
        "many examples.",
    )


def _trust(found: LavaResult) -> Table:
    certificate = found.certificate
    rows = (
        ("solver", found.solver),
        ("solved to the accuracy asked for", "yes" if found.converged else "no, soft by design"),
        ("iterations", f"{int(found.num_iterations):,}"),
        ("plan against the masses given", f"{float(certificate.marginal_error):.1e}"),
        ("dual gap, of the distance", f"{float(certificate.dual_gap):.1e}"),
        (
            f"values against real moves of mass ({len(certificate.checked)}), of their range",
            f"{float(certificate.finite_difference_error):.1e}",
        ),
    )
    return Table(
        (Column("certificate of LAVA"), Column("this run")),
        rows,
        f"How far the values can be trusted as derivatives of the distance between {NUM_CLASSES} "
        "classes on either side: the smaller, the better.",
    )


def _extremes(values: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    order = np.argsort(values, kind="stable")
    return (
        (f"The {_SHOWN} training examples of lowest value", order[:_SHOWN]),
        ("Highest value", order[::-1][: _SHOWN // 2]),
    )
