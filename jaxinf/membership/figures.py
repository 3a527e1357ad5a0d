"""What is said of one score: how well it tells members from non-members, with what certainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix, as_vector
from jaxinf.evaluation.intervals import Interval
from jaxinf.evaluation.roc import roc_auc, why_no_rate
from jaxinf.evaluation.roc_bootstrap import RocBootstrap, percentile_interval
from jaxinf.evaluation.thresholds import (
    CalibratedAccuracy,
    OracleAccuracy,
    RocCurve,
    calibrated_accuracy,
    oracle_accuracy,
    roc_curve,
)


@dataclass(frozen=True)
class SeedSpread:
    """How far the AUC of one attack owes to its random start.

    Attributes:
        auc: float64[S], of each attack seed by itself.
        mean: their mean; the AUC of the mean score is commonly higher.
        std: their standard deviation (S − 1 degrees of freedom).
    """

    auc: Float[np.ndarray, " S"]
    mean: float
    std: float


@dataclass(frozen=True)
class ScoreFigures:
    """One attack or blind control.

    Attributes:
        name: what it was called.
        role: "attack" or "control".
        scores: float64[N], higher = more likely a member; the mean over attack seeds.
        auc: area under the ROC curve, with its bootstrap interval.
        tpr: true positive rate at each false positive rate, with its bootstrap interval; None
            where fewer than 10 non-members are allowed above the threshold.
        oracle: balanced accuracy at the best threshold on the evaluation labels: not attainable.
        calibrated: accuracy at a threshold set on known non-members, and the false positive rate
            it realised.
        roc: the curve, for a plot with logarithmic axes.
        seeds: spread over attack seeds, where there were several.
    """

    name: str
    role: Literal["attack", "control"]
    scores: Float[np.ndarray, " N"]
    auc: Interval
    tpr: dict[float, Interval | None]
    oracle: OracleAccuracy
    calibrated: CalibratedAccuracy
    roc: RocCurve
    seeds: SeedSpread | None


def check_scores(name: str, scores: ArrayLike, count: int) -> Float[np.ndarray, "S N"]:
    """Bring one attack's scores to the host as float64[S, N].

    Raises:
        InputError: naming the attack, for other shapes or NaN.

    Example:
        >>> check_scores("CSA", [0.1, 0.2], 3)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: scores['CSA'] are for 2 examples and is_member for 3
    """
    title = f"scores[{name!r}]"
    several = np.ndim(scores) == 2
    rows = as_matrix(scores, title) if several else as_vector(scores, title)[None]
    if not np.isfinite(rows).all():
        raise InputError(f"{title} hold infinities: clip them, or leave the examples out")
    if rows.shape[1] != count:
        raise InputError(f"{title} are for {rows.shape[1]} examples and is_member for {count}")
    return rows


def score_figures(
    name: str,
    role: Literal["attack", "control"],
    seeds: Float[np.ndarray, "S N"],
    is_member: Bool[np.ndarray, " N"],
    *,
    drawn: RocBootstrap,
    column: int,
    known: Float[np.ndarray, " M"] | None,
    half: Bool[np.ndarray, " N"],
    threshold_fpr: float,
    confidence: float,
) -> ScoreFigures:
    """Put together what is said of one score.

    Args:
        name: of the attack or control.
        role: which of the two.
        seeds: scores, one row per attack seed.
        is_member: the truth.
        drawn: the bootstrap of all scores.
        column: which of them this is.
        known: scores of further non-members, which set the threshold. Without them the
            non-members in `half` do, and the others tell what rate is realised.
        half: bool[N], some of the non-members.
        threshold_fpr: false positive rate that the threshold is set for.
        confidence: level of the intervals.
    """
    scores = seeds.mean(axis=0)
    judged = slice(None) if known is not None else ~half
    return ScoreFigures(
        name=name,
        role=role,
        scores=scores,
        auc=percentile_interval(
            drawn.auc[column], drawn.auc_draws[:, column], confidence=confidence
        ),
        tpr={
            rate: None
            if why_no_rate(int((~is_member).sum()), rate)
            else percentile_interval(
                drawn.tpr[column, at], drawn.tpr_draws[:, column, at], confidence=confidence
            )
            for at, rate in enumerate(drawn.fprs)
        },
        oracle=oracle_accuracy(scores, is_member),
        calibrated=calibrated_accuracy(
            scores[judged],
            is_member[judged],
            scores[half] if known is None else known,
            fpr=threshold_fpr,
            confidence=confidence,
        ),
        roc=roc_curve(scores, is_member),
        seeds=_spread(seeds, is_member) if len(seeds) > 1 else None,
    )


def missing_rates(is_member: Bool[np.ndarray, " N"], fprs: Sequence[float]) -> list[str]:
    """Why there is no number at some of the false positive rates."""
    count = int((~is_member).sum())
    return [reason for rate in fprs if (reason := why_no_rate(count, rate))]


def _spread(seeds: Float[np.ndarray, "S N"], is_member: Bool[np.ndarray, " N"]) -> SeedSpread:
    # ranks first: float64 scores that float32 would tie stay apart
    ranks = [np.unique(row, return_inverse=True)[1] for row in seeds]
    auc = np.array([float(roc_auc(row, is_member)) for row in ranks])
    return SeedSpread(auc, float(auc.mean()), float(auc.std(ddof=1)))
