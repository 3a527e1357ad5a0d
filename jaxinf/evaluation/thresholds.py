"""Thresholds on a score, on the host: the whole ROC curve, the oracle, and one set on negatives.

Higher scores = more likely positive.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra
from jaxinf.evaluation.checks import as_vector
from jaxinf.evaluation.intervals import Interval, clopper_pearson
from jaxinf.evaluation.roc import check_two_classes


@dataclass(frozen=True)
class RocCurve:
    """A ROC curve from (0, 0) to (1, 1); points on a straight line are left out.

    Attributes:
        fpr: float64[P], share of the negatives with scores of at least the threshold, rising.
        tpr: float64[P], the same share of the positives.
        thresholds: float64[P], falling, the first infinite.
    """

    fpr: Float[np.ndarray, " P"]
    tpr: Float[np.ndarray, " P"]
    thresholds: Float[np.ndarray, " P"]


@dataclass(frozen=True)
class OracleAccuracy:
    """What the best threshold reaches when it may look at the labels it is judged by.

    An upper bound that nobody without the answers can reach; it is above 1/2 on pure noise.

    Attributes:
        accuracy: mean of the true positive and true negative rates.
        threshold: scores of at least this count as positive.
    """

    accuracy: float
    threshold: float


@dataclass(frozen=True)
class CalibratedAccuracy:
    """What a threshold reaches that was set on other negatives alone.

    Attributes:
        threshold: scores above this count as positive.
        target_fpr: the false positive rate that the threshold was set for.
        fpr: the rate on negatives that did not set it, with its Clopper–Pearson interval.
        tpr: the true positive rate, with its Clopper–Pearson interval.
        accuracy: mean of the true positive and true negative rates.
        known_fpr: the share of the negatives that set it which lie above it, with its interval:
            where this one and `fpr` disagree, the two sets of negatives are not alike.
    """

    threshold: float
    target_fpr: float
    fpr: Interval
    tpr: Interval
    accuracy: float
    known_fpr: Interval


def roc_curve(scores: ArrayLike, is_positive: ArrayLike) -> RocCurve:
    """The whole curve, on the host, as `sklearn.metrics.roc_curve` draws it.

    Args:
        scores: float[N], higher = more likely positive.
        is_positive: bool[N]; both kinds must occur.

    Returns:
        `RocCurve`.

    Raises:
        InputError: as `roc_auc`.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> roc_curve([0.9, 0.8, 0.3, 0.1], [True, False, True, False]).tpr
        array([0. , 0.5, 0.5, 1. , 1. ])
    """
    vector, truth = check_two_classes(scores, is_positive)
    # ranks in place of values: scikit-learn refuses infinities
    values, rank = np.unique(vector, return_inverse=True)
    fpr, tpr, at = require_extra("sklearn.metrics", "cli").roc_curve(truth, rank)
    return RocCurve(fpr, tpr, np.append(np.inf, values[at[1:].astype(int)]))


def oracle_accuracy(scores: ArrayLike, is_positive: ArrayLike) -> OracleAccuracy:
    """Balanced accuracy at the threshold that is best on these very labels: an oracle.

    Args:
        scores: float[N], higher = more likely positive.
        is_positive: bool[N]; both kinds must occur.

    Returns:
        `OracleAccuracy`, 0.5 to 1.

    Raises:
        InputError: as `roc_auc`.

    Example:
        >>> oracle_accuracy([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
        OracleAccuracy(accuracy=0.75, threshold=0.9)
    """
    curve = roc_curve(scores, is_positive)
    accuracy = (curve.tpr + 1 - curve.fpr) / 2
    best = int(np.argmax(accuracy))
    return OracleAccuracy(float(accuracy[best]), float(curve.thresholds[best]))


def threshold_at_fpr(negative_scores: ArrayLike, fpr: float) -> float:
    """Lowest threshold that at most a share `fpr` of these negatives exceeds.

    Args:
        negative_scores: float[M], scores of known negatives.
        fpr: false positive rate aimed at, between 0 and 1.

    Returns:
        One of the scores; only what is above it counts as positive.

    Raises:
        InputError: for scores that are not [M] or hold NaN, or a rate outside (0, 1).

    Example:
        >>> threshold_at_fpr([0.1, 0.2, 0.3, 0.4], 0.25)
        0.3
    """
    known = as_vector(negative_scores, "negative_scores")
    if not 0 < fpr < 1:
        raise InputError(f"fpr is {fpr}: give a rate between 0 and 1, such as 0.05")
    allowed = int(np.floor(fpr * len(known) * (1 + 1e-9)))
    return float(np.sort(known)[len(known) - 1 - allowed])


def calibrated_accuracy(
    scores: ArrayLike,
    is_positive: ArrayLike,
    known_negative_scores: ArrayLike,
    *,
    fpr: float = 0.05,
    confidence: float = 0.95,
) -> CalibratedAccuracy:
    """Accuracy at a threshold set on known negatives, and the false positive rate it realises.

    Args:
        scores: float[N], higher = more likely positive.
        is_positive: bool[N]; both kinds must occur.
        known_negative_scores: float[M], of negatives that are not among the N.
        fpr: false positive rate that the threshold is set for.
        confidence: level of the two Clopper–Pearson intervals.

    Returns:
        `CalibratedAccuracy`. The interval of the realised rate takes the threshold as given.

    Raises:
        InputError: as `roc_auc` and `threshold_at_fpr`.

    Example:
        >>> known = np.arange(100)
        >>> found = calibrated_accuracy([97, 50, 99, 10], [True, False, True, False], known)
        >>> found.threshold, found.fpr.estimate, found.accuracy
        (94.0, 0.0, 1.0)
    """
    vector, truth = check_two_classes(scores, is_positive)
    threshold = threshold_at_fpr(known_negative_scores, fpr)
    above = vector > threshold
    known = np.asarray(known_negative_scores) > threshold
    realised, found, expected = (
        clopper_pearson(int(side.sum()), len(side), confidence=confidence)
        for side in (above[~truth], above[truth], known)
    )
    accuracy = (found.estimate + 1 - realised.estimate) / 2
    return CalibratedAccuracy(threshold, fpr, realised, found, accuracy, expected)
