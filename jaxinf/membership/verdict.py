"""What the figures of a report amount to, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxinf.evaluation.intervals import Interval
from jaxinf.membership.figures import ScoreFigures


@dataclass(frozen=True)
class Difference:
    """Two scores compared on the same examples.

    Attributes:
        first: name of an attack.
        second: name of a control or another attack.
        auc: AUC of the first less that of the second, and its paired bootstrap interval, at the
            report's confidence shared out over the attacks.
    """

    first: str
    second: str
    auc: Interval


@dataclass(frozen=True)
class Verdict:
    """Whether the scores show membership.

    Attributes:
        evidence: whether some attack is above chance and above every blind control.
        attack: the attack that the verdict speaks of: the best of those that are, or of all.
        text: the verdict in words, with the figures it rests on.
    """

    evidence: bool
    attack: str
    text: str


def judge(
    figures: Sequence[ScoreFigures],
    chance: Sequence[Interval],
    differences: Sequence[Difference],
) -> Verdict:
    """Decide whether there is evidence of membership.

    Args:
        figures: attacks, then controls.
        chance: the interval of each attack's AUC, at the level of the verdict.
        differences: attacks against controls, at the same level.
    """
    attacks = [f for f in figures if f.role == "attack"]
    controls = {f.name: f for f in figures if f.role == "control"}
    against = {
        attack.name: [d for d in differences if d.first == attack.name and d.second in controls]
        for attack in attacks
    }
    above_chance = {f.name for f, auc in zip(attacks, chance, strict=True) if auc.low > 0.5}
    above_all = {name for name, ds in against.items() if all(d.auc.low > 0 for d in ds)}
    convincing = [f for f in attacks if f.name in above_chance & above_all]
    best = max(convincing or attacks, key=lambda f: f.auc.estimate)
    nearest = min(against[best.name], key=lambda d: d.auc.low)
    auc = f"{best.name}, AUC {_show(best.auc)},"
    if convincing:
        text = (
            f"evidence of membership: {auc} is above chance and above every blind control "
            f"(nearest: {nearest.second}, by {_show(nearest.auc)})"
        )
    elif best.name not in above_chance:
        text = f"no evidence of membership: the best attack, {auc} is not above chance"
    else:
        text = (
            f"no evidence of membership: the blind control {nearest.second}, AUC "
            f"{_show(controls[nearest.second].auc)}, does as well as the best attack, {auc} the "
            f"difference being {_show(nearest.auc)}"
        )
    return Verdict(bool(convincing), best.name, text)


def cautions(figures: Sequence[ScoreFigures]) -> list[str]:
    """What to know before quoting a number: controls off chance, thresholds that did not hold."""
    found = []
    for control in figures:
        if control.role == "control" and not control.auc.low <= 0.5 <= control.auc.high:
            side = "" if control.auc.low > 0.5 else ", in reverse"
            found.append(
                f"the sets differ without the model: the blind control {control.name} tells them "
                f"apart{side}, AUC {_show(control.auc)}"
            )
    for attack in figures:
        at = attack.calibrated
        # two intervals that do not meet: the threshold is a draw too, so one alone would not do
        apart = max(at.fpr.low, at.known_fpr.low) > min(at.fpr.high, at.known_fpr.high)
        if attack.role == "attack" and apart:
            found.append(
                f"the threshold of {attack.name}, set for a false positive rate of "
                f"{at.target_fpr:g}, realised {_show(at.fpr)}: the non-members that set it are "
                "not like those it was judged by"
            )
    return found


def _show(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
