"""Bootstrap of ROC figures for several scores of the same examples at once, on the device."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import check_confidence
from jaxinf.evaluation.intervals import Interval
from jaxinf.evaluation.roc import (
    Ladder,
    auc_of_counts,
    check_two_classes,
    ladder,
    tpr_of_counts,
)

# examples × scores resampled at once: keeps memory within a few hundred MB
_ENTRIES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class RocBootstrap:
    """ROC figures of K scores, on the sample and on each of D resamples of it.

    Every resample draws the same rows for all scores, so columns are paired: the difference of
    two scores has the interval `percentile_interval(auc[i] - auc[j], ...)`.

    Attributes:
        auc: float[K], on the sample.
        auc_draws: float[D, K].
        tpr: float[K, F], at each false positive rate.
        tpr_draws: float[D, K, F].
        fprs: the F rates.
    """

    auc: Float[np.ndarray, " K"]
    auc_draws: Float[np.ndarray, "D K"]
    tpr: Float[np.ndarray, "K F"]
    tpr_draws: Float[np.ndarray, "D K F"]
    fprs: tuple[float, ...]


def bootstrap_roc(
    scores: Sequence[ArrayLike] | np.ndarray,
    is_positive: ArrayLike,
    *,
    key: jax.Array,
    fprs: Sequence[float] = (0.1, 0.01, 0.001),
    num_resamples: int = 2000,
) -> RocBootstrap:
    """Draw the positives anew among themselves, and the negatives; read off AUC and TPR each time.

    One compiled program: each score is sorted once, a resample is a count per row, and memory is
    bounded whatever the number of examples, scores and resamples.

    Args:
        scores: K rows of float[N], higher = more likely positive.
        is_positive: bool[N]; both kinds must occur.
        key: random key.
        fprs: false positive rates. Whether there are negatives enough for a rate is the caller's
            to ask, of `jaxinf.evaluation.roc.why_no_rate`.
        num_resamples: D, at least 100.

    Returns:
        `RocBootstrap`.

    Raises:
        InputError: as `jaxinf.evaluation.roc.roc_auc` for any row, for no row, for rates outside
            (0, 1], or too few resamples.

    Example:
        >>> labels = np.arange(200) % 2 == 0
        >>> drawn = bootstrap_roc([np.arange(200), labels], labels, key=jax.random.key(0))
        >>> drawn.auc.round(3), drawn.auc_draws.shape
        (array([0.495, 1.   ], dtype=float32), (2000, 2))
    """
    if num_resamples < 100:
        raise InputError(f"num_resamples is {num_resamples}: at least 100, better thousands")
    if not all(0 < rate <= 1 for rate in fprs):
        raise InputError(f"fprs are {tuple(fprs)}: rates lie above 0 and are at most 1")
    checked = [check_two_classes(row, is_positive) for row in scores]
    if not checked:
        raise InputError("scores hold no row: give at least one score per example")
    truth = checked[0][1]
    # dense ranks keep float64 scores apart that float32 would tie
    ranks = np.stack([np.unique(row, return_inverse=True)[1] for row, _ in checked])
    # XLA's CPU backend scatters and sums fastest one resample at a time
    together = 1 if jax.default_backend() == "cpu" else _ENTRIES_AT_ONCE // ranks.size
    figures = _bootstrap(
        jnp.asarray(ranks[:, truth].astype(np.int32)),
        jnp.asarray(ranks[:, ~truth].astype(np.int32)),
        key,
        jnp.asarray(tuple(fprs), float),
        num_resamples=num_resamples,
        batch_size=max(1, min(num_resamples, together)),
    )
    auc, auc_draws, tpr, tpr_draws = (np.asarray(figure) for figure in figures)
    return RocBootstrap(auc, auc_draws, tpr, tpr_draws, tuple(fprs))


def percentile_interval(estimate: ArrayLike, draws: ArrayLike, *, confidence: float) -> Interval:
    """The middle share `confidence` of a figure's resamples, as an interval around it.

    Args:
        estimate: the figure on the sample.
        draws: float[D], the figure on the resamples.
        confidence: level, between 0 and 1.

    Raises:
        InputError: for a level outside (0, 1).

    Example:
        >>> percentile_interval(0.5, np.linspace(0, 1, 101), confidence=0.9)
        Interval(estimate=0.5, low=0.05, high=0.95, confidence=0.9)
    """
    check_confidence(confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(draws, np.float64), [tail, 1 - tail]).round(12)
    return Interval(float(np.asarray(estimate)), float(low), float(high), confidence)


@functools.partial(jax.jit, static_argnames=("num_resamples", "batch_size"))
def _bootstrap(
    positives: Int[jax.Array, "K P"],
    negatives: Int[jax.Array, "K M"],
    key: jax.Array,
    fprs: Float[jax.Array, " F"],
    *,
    num_resamples: int,
    batch_size: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    num_positives, num_negatives = positives.shape[1], negatives.shape[1]
    rungs = jax.vmap(ladder)(positives, negatives)

    def figures(positive: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
        def of_one(rungs: Ladder) -> tuple[jax.Array, jax.Array]:
            return (
                auc_of_counts(rungs, positive, negative),
                tpr_of_counts(rungs, positive, negative, fprs),
            )

        return jax.vmap(of_one)(rungs)

    def draw(key: jax.Array, count: int) -> jax.Array:
        return jnp.bincount(jax.random.randint(key, (count,), 0, count), length=count)

    def resample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        return figures(draw(first, num_positives), draw(second, num_negatives))

    auc, tpr = figures(jnp.ones(num_positives, jnp.int32), jnp.ones(num_negatives, jnp.int32))
    keys = jax.random.split(key, num_resamples)
    auc_draws, tpr_draws = jax.lax.map(resample, keys, batch_size=batch_size)
    return auc, auc_draws, tpr, tpr_draws
