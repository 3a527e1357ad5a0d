"""The linear datamodeling score with an interval over the test queries and the subsets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import check_confidence
from jaxinf.evaluation.correlation import linear_datamodeling_score
from jaxinf.evaluation.intervals import Interval

# entries of a [queries, subsets, resamples] block: keeps the bootstrap within 200 MB
_ENTRIES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Lds:
    """The linear datamodeling score of one method.

    Attributes:
        per_query: float64[K], -1 to 1; NaN where it is undefined.
        mean: their mean over the queries where it is defined, with its bootstrap interval.
        num_undefined: queries whose scores or outputs are constant.
    """

    per_query: Float[np.ndarray, " K"]
    mean: Interval
    num_undefined: int


def lds(
    scores: ArrayLike,
    subsets: ArrayLike,
    outputs: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Lds:
    """Mean linear datamodeling score, and how far it can be trusted.

    Both the queries and the retrained models are samples, and all queries share the models: so
    each resample draws queries anew and, jointly for all of them, subsets anew.

    Args:
        scores: float[K, N], positive = training on the example raises the query's output.
        subsets: bool[S, N], which examples each of the S retrained models saw.
        outputs: float[S, K], the output of each retrained model on each query, higher = better.
        confidence: level of the percentile interval.
        num_resamples: resamples, at least 100.
        seed: the resamples.

    Returns:
        `Lds`.

    Raises:
        InputError: as `linear_datamodeling_score`, for options out of range, or scores that are
            constant for every query.

    Reference:
        Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023 (arXiv 2303.14186).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> true, subsets = rng.normal(size=(20, 30)), rng.random((40, 30)) < 0.5
        >>> lds(true, subsets, subsets @ true.T).mean
        Interval(estimate=1.0, low=1.0, high=1.0, confidence=0.95)
    """
    check_confidence(confidence)
    if num_resamples < 100:
        raise InputError(f"num_resamples is {num_resamples}: at least 100, better thousands")
    per_query = linear_datamodeling_score(scores, subsets, outputs)
    defined = ~np.isnan(per_query)
    if not defined.any():
        raise InputError("the scores or the outputs of every query are constant: no LDS is defined")
    rng = np.random.default_rng(seed)
    predicted = _predict(np.asarray(scores, np.float64)[defined], np.asarray(subsets))
    observed = np.asarray(outputs, np.float64).T[defined]
    draws = _resampled_means(predicted, observed, num_resamples, rng)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail]).round(12)
    mean = Interval(float(per_query[defined].mean().round(12)), float(low), float(high), confidence)
    return Lds(per_query, mean, int((~defined).sum()))


def _predict(scores: np.ndarray, subsets: np.ndarray) -> Float[np.ndarray, "K S"]:
    # sums that differ by rounding alone are ties, as in linear_datamodeling_score
    step = np.abs(scores).sum(axis=1, keepdims=True) * 2.0**-40
    return np.rint(scores @ subsets.T.astype(np.float64) / step)


def _resampled_means(
    predicted: np.ndarray, observed: np.ndarray, num_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    num_queries, num_subsets = predicted.shape
    counts = _draw_counts(rng, num_resamples, num_subsets).T
    queries = _draw_counts(rng, num_resamples, num_queries).T
    total, weight = np.zeros(num_resamples), np.zeros(num_resamples)
    step = max(1, _ENTRIES_AT_ONCE // (num_subsets * max(num_subsets, num_resamples)))
    for start in range(0, num_queries, step):
        part = slice(start, start + step)
        rho = _spearman_of_counts(predicted[part], observed[part], counts)
        defined = ~np.isnan(rho)
        total += np.sum(queries[part] * np.where(defined, rho, 0), axis=0)
        weight += np.sum(queries[part] * defined, axis=0)
    return np.divide(total, weight, out=np.full(num_resamples, np.nan), where=weight > 0)


def _draw_counts(rng: np.random.Generator, num_resamples: int, size: int) -> np.ndarray:
    """How often each of `size` units is drawn in each resample: float64[D, size]."""
    return rng.multinomial(size, np.full(size, 1 / size), num_resamples).astype(np.float64)


def _spearman_of_counts(
    a: Float[np.ndarray, "k S"], b: Float[np.ndarray, "k S"], counts: Float[np.ndarray, "S D"]
) -> Float[np.ndarray, "k D"]:
    """Spearman correlation over S pairs that occur `counts` times each; NaN where constant."""
    centred = [_centre(_ranks_of_counts(x, counts), counts) for x in (a, b)]
    product, first, second = (
        np.sum(counts[None] * x * y, axis=1)
        for x, y in (centred, (centred[0], centred[0]), (centred[1], centred[1]))
    )
    length = np.sqrt(first * second)
    return np.divide(product, length, out=np.full(length.shape, np.nan), where=length > 0)


def _ranks_of_counts(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mid-ranks [k, S, D], up to a constant: what lies below, and half of what is equal."""
    below = np.sign(values[:, :, None] - values[:, None, :])
    return (below / 2) @ counts


def _centre(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ranks - np.sum(counts[None] * ranks, axis=1, keepdims=True) / counts.sum(axis=0)
