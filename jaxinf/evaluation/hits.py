"""Is what should be found at the top of the ranking? One ranking of N examples per query.

Higher scores rank first; equal scores rank by index, the lower first.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix, check_same_shape, check_top


def ranks(scores: ArrayLike, source: ArrayLike) -> Int[np.ndarray, " K"]:
    """Rank of each query's planted source among all N examples, 1 = the highest score.

    Args:
        scores: float[K, N], higher = more likely the source.
        source: int[K], the true source of each query, 0 to N - 1.

    Returns:
        int64[K], 1 to N; of equal scores the lower index ranks first.

    Raises:
        InputError: for scores that are not [K, N] or hold NaN, or sources that do not fit them.

    Example:
        >>> ranks([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]], [2, 1])
        array([2, 2])
    """
    matrix = as_matrix(scores, "scores")
    truth = np.asarray(source)
    num_queries, num_examples = matrix.shape
    if truth.shape != (num_queries,) or truth.dtype.kind not in "iu":
        raise InputError(
            f"source is {truth.dtype}{list(truth.shape)}: one row number per query is needed, "
            f"[{num_queries}]"
        )
    outside = np.flatnonzero((truth < 0) | (truth >= num_examples))
    if outside.size:
        raise InputError(
            f"source[{outside[0]}] is {truth[outside[0]]}, out of range for {num_examples} "
            "examples: leave out the queries that have no source"
        )
    own = np.take_along_axis(matrix, truth[:, None], axis=1)
    tied_before = (matrix == own) & (np.arange(num_examples) < truth[:, None])
    return 1 + np.count_nonzero((matrix > own) | tied_before, axis=1)


def hit_rate(scores: ArrayLike, source: ArrayLike, k: int) -> float:
    """Fraction of the queries whose planted source is among the k highest scores.

    Args:
        scores: float[K, N], higher = more likely the source.
        source: int[K], the true source of each query.
        k: how many count as found, 1 to N; of equal scores the lower index ranks first.

    Returns:
        0 to 1.

    Raises:
        InputError: as `ranks`, and for k out of range.

    Example:
        >>> hit_rate([[0.1, 0.9, 0.5], [0.7, 0.2, 0.1]], [2, 0], k=1)
        0.5
    """
    found = ranks(scores, source)
    check_top(k, np.shape(scores)[1])
    return float(np.mean(found <= k))


def mean_reciprocal_rank(scores: ArrayLike, source: ArrayLike) -> float:
    """Mean over the queries of 1 / rank of the planted source.

    Args:
        scores: float[K, N], higher = more likely the source.
        source: int[K], the true source of each query.

    Returns:
        1/N to 1; 1 when every source ranks first.

    Raises:
        InputError: as `ranks`.

    Example:
        >>> mean_reciprocal_rank([[0.1, 0.9, 0.5], [0.7, 0.2, 0.1]], [2, 0])
        0.75
    """
    return float(np.mean(1 / ranks(scores, source)))


def top_k_indices(scores: ArrayLike, k: int) -> Int[np.ndarray, "K k"]:
    """Indices of the k highest scores of each query, best first, ties by the lower index.

    Args:
        scores: float[K, N].
        k: 1 to N.

    Returns:
        int64[K, k].

    Raises:
        InputError: for scores that are not [K, N] or hold NaN, or k out of range.

    Example:
        >>> top_k_indices([[0.1, 0.9, 0.9]], 2)
        array([[1, 2]])
    """
    matrix = as_matrix(scores, "scores")
    check_top(k, matrix.shape[1])
    # sorting all N would be the slowest step by far: find the k-th score, then sort k alone
    last = -np.partition(-matrix, k - 1, axis=1)[:, k - 1 : k]
    above, tied = matrix > last, matrix == last
    room = k - np.count_nonzero(above, axis=1, keepdims=True)
    kept = above | (tied & (np.cumsum(tied, axis=1) <= room))
    columns = np.nonzero(kept)[1].reshape(len(matrix), k)
    order = np.argsort(-np.take_along_axis(matrix, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def recall_at_k(scores: ArrayLike, relevant: ArrayLike, k: int) -> Float[np.ndarray, " K"]:
    """Share of each query's relevant examples that is among its k highest scores.

    Args:
        scores: float[K, N], higher = more relevant.
        relevant: bool[K, N], which examples are; at least one per query.
        k: 1 to N. A query with more than k relevant examples cannot reach 1.

    Returns:
        float64[K], 0 to 1; their mean is the usual figure.

    Raises:
        InputError: for scores that are not [K, N] or hold NaN, a mask that is not bool of the
            same shape, a query without a relevant example, or k out of range.

    Example:
        >>> recall_at_k([[0.9, 0.1, 0.8, 0.2]], [[True, True, False, False]], k=2)
        array([0.5])
    """
    top = top_k_indices(scores, k)
    mask = np.asarray(relevant)
    if mask.dtype != bool:
        raise InputError(f"relevant is {mask.dtype}: a bool mask is needed")
    check_same_shape(np.asarray(scores), mask, "scores and relevant")
    totals = mask.sum(axis=1)
    if not totals.all():
        raise InputError(f"query {int(np.argmin(totals))} has no relevant example: leave it out")
    return np.take_along_axis(mask, top, axis=1).sum(axis=1) / totals


def top_k_overlap(a: ArrayLike, b: ArrayLike, k: int) -> Float[np.ndarray, " K"]:
    """Share of each query's k highest scores on which two methods agree, in whatever order.

    Args:
        a: float[K, N], the scores of one method.
        b: float[K, N], those of another for the same queries and examples.
        k: 1 to N.

    Returns:
        float64[K], 0 to 1; two random rankings give k/N on average.

    Raises:
        InputError: for scores of different shapes, that are not [K, N] or hold NaN, or k out
            of range.

    Example:
        >>> top_k_overlap([[3.0, 2.0, 1.0]], [[1.0, 3.0, 2.0]], k=2)
        array([0.5])
    """
    top_a, top_b = top_k_indices(a, k), top_k_indices(b, k)
    check_same_shape(np.asarray(a), np.asarray(b), "the two sets of scores")
    chosen = np.zeros(np.shape(a), bool)
    np.put_along_axis(chosen, top_a, True, axis=1)
    return np.take_along_axis(chosen, top_b, axis=1).mean(axis=1)
