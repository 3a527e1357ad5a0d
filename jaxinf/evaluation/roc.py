"""ROC figures on the device: how well a score tells positives from negatives.

Higher = more likely positive. `roc_auc` and `tpr_at_fpr` jit and vmap.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int, Real
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_vector, check_same_shape
from jaxinf.typing import AnyArray

MIN_FALSE_POSITIVES = 10
"""A rate is read off a ROC curve only where at least so many negatives lie above the threshold."""


class RocWarning(UserWarning):
    """Too few negatives for a figure, which is left out."""


class Ladder(NamedTuple):
    """Negatives from the lowest score to the highest, and between which ones each positive falls.

    Attributes:
        order: int[M], row numbers of the negatives, lowest score first.
        low: int[P], how many negatives score below each positive.
        high: int[P], how many score no higher.
    """

    order: Int[jax.Array, " M"]
    low: Int[jax.Array, " P"]
    high: Int[jax.Array, " P"]


def roc_auc(scores: Real[AnyArray, " N"], is_positive: ArrayLike) -> Float[jax.Array, ""]:
    """Area under the ROC curve: how often a positive scores above a negative. Jits and vmaps.

    Args:
        scores: number[N], higher = more likely positive; compared at the precision they have on
            the device.
        is_positive: bool[N]; both kinds must occur.

    Returns:
        float[], 0 to 1; 0.5 is chance, and ties count half. NaN, which is to say undefined,
        where traced labels are all alike.

    Raises:
        InputError: for scores that are not [N] or hold NaN, or labels that are not bool[N] with
            both kinds; values are not read when they are traced.

    Example:
        >>> float(roc_auc([0.9, 0.8, 0.8, 0.1], [True, False, True, False]))
        0.875
    """
    return _auc(*_on_device(scores, is_positive))


def tpr_at_fpr(
    scores: Real[AnyArray, " N"], is_positive: ArrayLike, fpr: float | ArrayLike
) -> Float[jax.Array, "..."]:
    """Highest true positive rate of all thresholds with at most this false positive rate.

    No interpolation: the threshold is one of the scores, and equal scores stay together. Jits
    and vmaps.

    Args:
        scores: number[N], higher = more likely positive.
        is_positive: bool[N]; both kinds must occur.
        fpr: one rate, or several [F], between 0 and 1.

    Returns:
        float[] or float[F], 0 to 1. NaN where fewer than 10 negatives are allowed above the
        threshold (negatives × fpr < 10): such a rate would be one of chance.

    Raises:
        InputError: as `roc_auc`, and for rates outside (0, 1].

    Warns:
        RocWarning: for rates left out, unless the labels are traced.

    Example:
        >>> import numpy as np
        >>> scores, labels = np.arange(200), np.arange(200) >= 100
        >>> float(tpr_at_fpr(scores, labels, 0.1))
        1.0
    """
    rates = np.asarray(fpr, np.float64)
    if not ((rates > 0) & (rates <= 1)).all():
        raise InputError(f"fpr is {fpr}: rates lie above 0 and are at most 1")
    scores, labels = _on_device(scores, is_positive)
    if not isinstance(is_positive, Tracer):
        num_negatives = int(np.count_nonzero(~np.asarray(is_positive)))
        reasons = [why_no_rate(num_negatives, rate) for rate in np.atleast_1d(rates)]
        if any(reasons):
            warnings.warn("; ".join(filter(None, reasons)), RocWarning, stacklevel=2)
    return _tpr(scores, labels, jnp.asarray(rates.ravel(), float)).reshape(rates.shape)


def why_no_rate(num_negatives: int, fpr: float) -> str | None:
    """Why no rate is given at so low a false positive rate; None where it is.

    Example:
        >>> why_no_rate(500, 0.01)
        'no TPR at 1 % FPR: 500 non-members × 0.01 is 5, under 10; at least 1000 are needed'
        >>> why_no_rate(1000, 0.01)
    """
    allowed = num_negatives * float(fpr)
    if allowed >= MIN_FALSE_POSITIVES * (1 - 1e-6):
        return None
    needed = int(np.ceil(MIN_FALSE_POSITIVES / float(fpr) * (1 - 1e-6)))
    return (
        f"no TPR at {100 * float(fpr):g} % FPR: {num_negatives} non-members × {float(fpr):g} is "
        f"{allowed:g}, under {MIN_FALSE_POSITIVES}; at least {needed} are needed"
    )


def ladder(positives: Real[jax.Array, " P"], negatives: Real[jax.Array, " M"]) -> Ladder:
    """Sort once, so that any weighting of the rows has its ROC figures in linear time.

    Example:
        >>> ladder(jnp.array([0.5, 0.1]), jnp.array([0.5, 0.2])).high.tolist()
        [2, 0]
    """
    order = jnp.argsort(negatives)
    low, high = (jnp.searchsorted(negatives[order], positives, side=s) for s in ("left", "right"))
    return Ladder(order, low, high)


def auc_of_counts(
    rungs: Ladder, positive: Int[jax.Array, " P"], negative: Int[jax.Array, " M"]
) -> Float[jax.Array, ""]:
    """AUC of rows that count several times over, as in a bootstrap resample.

    Args:
        rungs: of the scores.
        positive: int[P], how often each positive counts.
        negative: int[M], how often each negative.

    Example:
        >>> rungs = ladder(jnp.array([3.0, 1.0]), jnp.array([2.0]))
        >>> float(auc_of_counts(rungs, jnp.array([3, 1]), jnp.array([1])))
        0.75
    """
    below = _running_total(negative[rungs.order])
    wins = (below[rungs.low] + below[rungs.high]).astype(float) / (2 * below[-1])
    return jnp.sum(positive * wins) / jnp.sum(positive)


def tpr_of_counts(
    rungs: Ladder,
    positive: Int[jax.Array, " P"],
    negative: Int[jax.Array, " M"],
    fpr: Float[jax.Array, " F"],
) -> Float[jax.Array, " F"]:
    """True positive rate at each false positive rate, for rows that count several times over.

    Example:
        >>> rungs = ladder(jnp.array([3.0, 1.0]), jnp.array([2.0]))
        >>> tpr_of_counts(rungs, jnp.array([3, 1]), jnp.array([1]), jnp.array([0.5])).tolist()
        [0.75]
    """
    below = _running_total(negative[rungs.order])
    # counts are whole: a hair of slack makes 0.01 × 1000 mean 10
    allowed = jnp.floor(fpr * below[-1] * (1 + 1e-6)).astype(below.dtype)
    # the highest negative that may not pass; positives must score above it
    barred = jnp.searchsorted(below, below[-1] - allowed, side="left") - 1
    passed = jax.vmap(lambda rung: jnp.sum(jnp.where(rungs.low > rung, positive, 0)))(barred)
    return passed / jnp.sum(positive)


def check_two_classes(scores: ArrayLike, is_positive: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Bring scores and labels to the host; refuse what has no ROC curve.

    Returns:
        float64[N] and bool[N].

    Raises:
        InputError: for scores that are not [N] or hold NaN, labels that are not bool[N], or
            labels all alike.
    """
    vector, truth = as_vector(scores, "scores"), np.asarray(is_positive)
    check_same_shape(vector, truth, "scores and labels")
    if truth.dtype != bool:
        raise InputError(f"the labels are {truth.dtype}: a bool mask is needed, True = positive")
    if truth.all() or not truth.any():
        kind = "positive" if truth.all() else "negative"
        raise InputError(f"all {len(truth)} labels are {kind}: both kinds are needed")
    return vector, truth


@jax.jit
def _auc(scores: jax.Array, labels: jax.Array) -> jax.Array:
    return auc_of_counts(ladder(scores, scores), *_as_counts(labels))


@jax.jit
def _tpr(scores: jax.Array, labels: jax.Array, fpr: jax.Array) -> jax.Array:
    positive, negative = _as_counts(labels)
    tpr = tpr_of_counts(ladder(scores, scores), positive, negative, fpr)
    enough = jnp.sum(negative) * fpr >= MIN_FALSE_POSITIVES * (1 - 1e-6)
    return jnp.where(enough, tpr, jnp.nan)


def _as_counts(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    return labels.astype(jnp.int32), 1 - labels.astype(jnp.int32)


def _on_device(scores: ArrayLike, is_positive: ArrayLike) -> tuple[jax.Array, jax.Array]:
    if not isinstance(scores, Tracer) and not isinstance(is_positive, Tracer):
        check_two_classes(scores, is_positive)
    return jnp.asarray(scores), jnp.asarray(is_positive)


def _running_total(counts: Int[jax.Array, " N"]) -> Int[jax.Array, " N+1"]:
    return jnp.append(jnp.zeros(1, counts.dtype), jnp.cumsum(counts))
