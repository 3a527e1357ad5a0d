"""Do the scores find the bad examples? Higher score = more suspicious, throughout.

Values and influences are higher for better examples: hand over minus those.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra
from jaxinf.evaluation.checks import as_vector, check_same_shape


def detection_auc(scores: ArrayLike, is_bad: ArrayLike) -> float:
    """Area under the ROC curve: how often a bad example scores higher than a good one.

    Args:
        scores: float[N], higher = more suspicious.
        is_bad: bool[N], the truth; both kinds must occur.

    Returns:
        0 to 1; 0.5 is chance, and ties count half.

    Raises:
        InputError: for scores that are not [N] or hold NaN, or a truth that is not bool[N]
            with both kinds.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> detection_auc([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
        0.75
    """
    vector, truth = _check(scores, is_bad)
    return float(require_extra("sklearn.metrics", "cli").roc_auc_score(truth, _finite(vector)))


def average_precision(scores: ArrayLike, is_bad: ArrayLike) -> float:
    """Mean precision over the ranks at which bad examples are found.

    Args:
        scores: float[N], higher = more suspicious.
        is_bad: bool[N], the truth; both kinds must occur.

    Returns:
        0 to 1; chance gives about the share of bad examples.

    Raises:
        InputError: as `detection_auc`.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> round(average_precision([0.9, 0.8, 0.3, 0.1], [True, False, True, False]), 4)
        0.8333
    """
    vector, truth = _check(scores, is_bad)
    metrics = require_extra("sklearn.metrics", "cli")
    return float(metrics.average_precision_score(truth, _finite(vector)))


def detection_curve(
    scores: ArrayLike, is_bad: ArrayLike
) -> tuple[Float[np.ndarray, " cuts"], Float[np.ndarray, " cuts"]]:
    """Share of the bad examples found when the most suspicious are inspected first.

    Args:
        scores: float[N], higher = more suspicious; of equal scores the lower index is
            inspected first.
        is_bad: bool[N], the truth; both kinds must occur.

    Returns:
        `(inspected, found)`, float64[N + 1] each, rising from 0 to 1: entry n tells what share
        is found once the n most suspicious examples, a share n/N, have been looked at.

    Raises:
        InputError: as `detection_auc`.

    Example:
        >>> inspected, found = detection_curve([0.9, 0.1, 0.3, 0.2], [True, False, False, True])
        >>> inspected, found
        (array([0.  , 0.25, 0.5 , 0.75, 1.  ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    vector, truth = _check(scores, is_bad)
    order = np.argsort(-vector, kind="stable")
    found = np.concatenate([[0], np.cumsum(truth[order])])
    return np.arange(len(vector) + 1) / len(vector), found / found[-1]


def _check(
    scores: ArrayLike, is_bad: ArrayLike
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    vector, truth = as_vector(scores, "scores"), np.asarray(is_bad)
    check_same_shape(vector, truth, "scores and is_bad")
    if truth.dtype != bool:
        raise InputError(f"is_bad is {truth.dtype}: a bool mask is needed")
    if truth.all() or not truth.any():
        raise InputError("is_bad marks all examples or none: both kinds are needed")
    return vector, truth


def _finite(vector: np.ndarray) -> np.ndarray:
    # scikit-learn refuses infinite scores; only the order counts, so clipping changes nothing
    # but a tie with the largest float
    limit = np.finfo(np.float64).max
    return np.clip(vector, -limit, limit)
