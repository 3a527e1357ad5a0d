"""The report of a membership attack: numbers with their uncertainty, and a verdict in words."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_key
from jaxinf.evaluation.checks import as_vector, check_confidence
from jaxinf.evaluation.intervals import Interval
from jaxinf.evaluation.roc import check_two_classes
from jaxinf.evaluation.roc_bootstrap import RocBootstrap, bootstrap_roc, percentile_interval
from jaxinf.membership.controls import bag_of_words_control
from jaxinf.membership.figures import ScoreFigures, check_scores, missing_rates, score_figures
from jaxinf.membership.verdict import Difference, Verdict, cautions, judge

BAG_OF_WORDS = "bag of words"
"""What the control on the captions is called in a report."""


@dataclass(frozen=True)
class MembershipReport:
    """What the scores show, and what they do not.

    Attributes:
        verdict: whether there is evidence of membership, in words, and why.
        attacks: figures of each attack.
        controls: figures of each blind control.
        differences: AUC of the first less that of the second, paired over the examples: every
            attack against every control and every later attack.
        cautions: what to know before quoting a number: rates left out, controls that tell the
            sets apart, thresholds that did not hold.
        is_member: bool[N], the truth that the scores were judged by.
        confidence: level of the intervals of single figures.
    """

    verdict: Verdict
    attacks: tuple[ScoreFigures, ...]
    controls: tuple[ScoreFigures, ...]
    differences: tuple[Difference, ...]
    cautions: tuple[str, ...]
    is_member: Bool[np.ndarray, " N"]
    confidence: float

    def __getitem__(self, name: str) -> ScoreFigures:
        """The attack or control of that name."""
        found = {figures.name: figures for figures in (*self.attacks, *self.controls)}
        return found[name]

    def __str__(self) -> str:
        """The verdict and the cautions, a line each."""
        return "\n".join([self.verdict.text, *self.cautions])


def membership_report(
    scores: Mapping[str, ArrayLike] | ArrayLike,
    is_member: ArrayLike,
    *,
    key: jax.Array,
    controls: Mapping[str, ArrayLike] | None = None,
    captions: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    known_nonmembers: Mapping[str, ArrayLike] | ArrayLike | None = None,
    fprs: Sequence[float] = (0.1, 0.01, 0.001),
    threshold_fpr: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> MembershipReport:
    """Judge attacks beside blind controls on the same examples.

    There is evidence of membership only if some attack's AUC is above chance and above that of
    every control, by bootstrap intervals paired over the examples, at a level shared out over the
    attacks (Bonferroni). Otherwise the verdict is "no evidence of membership", whatever the AUC.

    Intervals treat the examples as independent draws: near-duplicates among them make the true
    intervals wider, so drop those first (`near_duplicate_groups`).

    Args:
        scores: float[N] for each attack by name, or float[S, N] for one with S attack seeds
            (judged by its mean score, its spread reported); an array alone is "attack". Higher =
            more likely a member.
        is_member: bool[N], the truth, or the claim: True for the pairs in question, False for
            pairs that the model cannot have seen.
        key: random key of the resamples, the folds and the halves.
        controls: float[N] for each blind control by name: scores that do not come from the model,
            such as `feature_control` of an untrained encoder or `cosine_similarity_attack` on
            another model.
        captions: N texts, for the control `bag_of_words_control`; required unless `controls` are
            given.
        groups: int or string[N], captions that must share a fold of that control.
        known_nonmembers: float[M] for each attack by name, scores of further non-members, which
            set the thresholds; they must not have trained the attack. Without them a random half
            of the non-members sets the thresholds, and the other half tells what rate is realised.
        fprs: where to read the true positive rate.
        threshold_fpr: the rate that thresholds are set for.
        confidence: level of the intervals.
        num_resamples: of the bootstrap, at least 100.

    Returns:
        `MembershipReport`.

    Raises:
        InputError: for no control and no captions, scores that are NaN or infinite or do not fit
            `is_member`, labels that are not bool[N] with both kinds, names met twice, or options
            out of range.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> member = np.arange(400) < 200
        >>> blind = {"noise": rng.normal(size=400)}
        >>> report = membership_report({"strong": rng.normal(size=400) + member}, member,
        ...     controls=blind, key=jax.random.key(0), fprs=[0.1], num_resamples=200)
        >>> print(report)
        evidence of membership: strong, AUC 0.770 [0.7..., 0.8...], is above chance and above every
        blind control (nearest: noise, by 0.230 [0.1..., 0.3...])
    """
    check_key(key)
    check_confidence(confidence)
    attacks = dict(scores) if isinstance(scores, Mapping) else {"attack": scores}
    blind = dict(controls or {})
    if not attacks:
        raise InputError("scores are empty: give at least one attack")
    if captions is None and not blind:
        raise InputError(
            "no blind control: give captions for the bag of words, or controls={name: scores}; "
            "without one the sets may differ by themselves"
        )
    truth = np.asarray(is_member)
    seeds = {
        name: check_scores(name, row, len(np.atleast_1d(truth)))
        for name, row in {**attacks, **blind}.items()
    }
    check_two_classes(np.zeros(len(np.atleast_1d(truth))), truth)
    bootstrap_key, fold_key, half_key = jax.random.split(key, 3)
    if captions is not None:
        both = sorted({*attacks, *blind} & {BAG_OF_WORDS})
        words = bag_of_words_control(captions, truth, seed=_seed(fold_key), groups=groups)
        blind[BAG_OF_WORDS], seeds[BAG_OF_WORDS] = words, words[None]
    else:
        both = []
    both += sorted(set(attacks) & set(blind) - {BAG_OF_WORDS})
    if both:
        raise InputError(f"{both[0]!r} names two scores: give each attack and control its own name")
    known = _known(known_nonmembers, attacks)
    half = np.zeros(len(truth), bool)
    others = np.random.default_rng(_seed(half_key)).permutation(np.flatnonzero(~truth))
    half[others[: len(others) // 2]] = True
    if len(known) < len(seeds) and len(others) < 2:
        raise InputError("one non-member cannot set a threshold and be judged by it: give more")

    drawn = bootstrap_roc(
        [rows.mean(axis=0) for rows in seeds.values()],
        truth,
        key=bootstrap_key,
        fprs=fprs,
        num_resamples=num_resamples,
    )
    figures = [
        score_figures(
            name,
            "attack" if name in attacks else "control",
            rows,
            truth,
            drawn=drawn,
            column=column,
            known=known.get(name),
            half=half,
            threshold_fpr=threshold_fpr,
            confidence=confidence,
        )
        for column, (name, rows) in enumerate(seeds.items())
    ]
    level = 1 - (1 - confidence) / len(attacks)
    compared = _differences(figures, drawn, level)
    chance = [
        percentile_interval(drawn.auc[column], drawn.auc_draws[:, column], confidence=level)
        for column in range(len(attacks))
    ]
    return MembershipReport(
        verdict=judge(figures, chance, compared),
        attacks=tuple(f for f in figures if f.role == "attack"),
        controls=tuple(f for f in figures if f.role == "control"),
        differences=tuple(compared),
        cautions=(*cautions(figures), *missing_rates(truth, fprs)),
        is_member=truth,
        confidence=confidence,
    )


def _differences(
    figures: Sequence[ScoreFigures], drawn: RocBootstrap, confidence: float
) -> list[Difference]:
    def interval(i: int, j: int) -> Interval:
        return percentile_interval(
            drawn.auc[i] - drawn.auc[j],
            drawn.auc_draws[:, i] - drawn.auc_draws[:, j],
            confidence=confidence,
        )

    return [
        Difference(first.name, second.name, interval(i, j))
        for (i, first), (j, second) in itertools.combinations(enumerate(figures), 2)
        if first.role == "attack"
    ]


def _known(
    given: Mapping[str, ArrayLike] | ArrayLike | None, attacks: Mapping[str, ArrayLike]
) -> dict[str, np.ndarray]:
    if given is None:
        return {}
    named = dict(given) if isinstance(given, Mapping) else dict.fromkeys(attacks, given)
    if not isinstance(given, Mapping) and len(attacks) > 1:
        raise InputError(f"known_nonmembers is one array for {len(attacks)} attacks: name them")
    if set(named) != set(attacks):
        odd = sorted(set(named) ^ set(attacks))[0]
        raise InputError(f"known_nonmembers and scores differ in {odd!r}: the same names in both")
    return {name: as_vector(row, f"known_nonmembers[{name!r}]") for name, row in named.items()}


def _seed(key: jax.Array) -> int:
    return int(jax.random.bits(key, dtype=np.uint32)) % 2**31
