"""Several rankings of the same training examples as one, and what all queries have in common."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_positive


def reciprocal_rank_fusion(
    scores: Sequence[ArrayLike], *, weights: Sequence[float] | None = None, constant: float = 60.0
) -> Float[np.ndarray, "K N"]:
    """Sum over the methods of `weight / (constant + rank)`, rank 1 for the highest score.

    Sign: higher = nearer the top of the rankings. It looks at ranks alone, so methods of
    different units can be mixed; of equal scores each gets the mean of their ranks.

    Args:
        scores: float[K, N] of each method.
        weights: one per method; default 1 each.
        constant: how flat the top is: large counts rank 1 hardly more than rank 10.

    Returns:
        float64[K, N].

    Raises:
        InputError: for scores that do not fit one another or are not finite, or weights that do
            not fit them.

    Example:
        >>> fused = reciprocal_rank_fusion([[[3.0, 2.0, 1.0]], [[0.0, 9.0, 1.0]]], constant=1)
        >>> fused.round(2).tolist()
        [[0.75, 0.83, 0.58]]

    Reference: Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009.
    """
    from scipy.stats import rankdata

    check_positive(constant, "constant")
    methods, shares = _check(scores, weights)
    parts = (
        share / (constant + rankdata(-method, axis=1))
        for method, share in zip(methods, shares, strict=True)
    )
    return np.sum(list(parts), axis=0)


def sum_of_z_scores(
    scores: Sequence[ArrayLike], *, weights: Sequence[float] | None = None
) -> Float[np.ndarray, "K N"]:
    """Weighted sum of the methods' scores, each query's row with mean 0 and deviation 1.

    Sign: higher = higher scores. Unlike ranks it keeps how far ahead the first ones are.

    Args:
        scores: float[K, N] of each method.
        weights: one per method; default 1 each.

    Returns:
        float64[K, N].

    Raises:
        InputError: as `reciprocal_rank_fusion`.

    Example:
        >>> sum_of_z_scores([[[1.0, -1.0]], [[0.0, 10.0]]], weights=[1.0, 0.5]).tolist()
        [[0.5, -0.5]]
    """
    methods, shares = _check(scores, weights)
    parts = (share * _z(method) for method, share in zip(methods, shares, strict=True))
    return np.sum(list(parts), axis=0)


def centre_over_queries(scores: ArrayLike) -> Float[np.ndarray, "K N"]:
    """Take off what an example scores for every query: z-scores of each column over the K queries.

    Some sentences lie near every question (long ones, hard ones, those of a common template);
    what is left is what they have to say to this one. It needs queries about different things.

    Sign: positive = higher for this query than for the others.

    Args:
        scores: float[K, N] with at least 2 queries.

    Returns:
        float64[K, N].

    Raises:
        InputError: for fewer than 2 queries, or scores that are not finite.

    Example:
        >>> centre_over_queries([[5.0, 1.0], [5.0, 3.0]]).tolist()
        [[0.0, -1.0], [0.0, 1.0]]
    """
    (matrix,), _ = _check([scores], None)
    if len(matrix) < 2:
        raise InputError("one query alone has no others to be compared with: pass at least 2")
    return _z(matrix.T).T


def rank_of_first(scores: ArrayLike, relevant: ArrayLike) -> Float[np.ndarray, " K"]:
    """Rank of each query's best-placed relevant example, 1 = the highest score.

    Of equal scores the relevant one counts as placed in the middle of them.

    Args:
        scores: float[K, N].
        relevant: bool[K, N], at least one per query.

    Returns:
        float64[K]; the mean of `1 / rank` is the mean reciprocal rank.

    Raises:
        InputError: for shapes that do not fit, or a query without a relevant example.

    Example:
        >>> rank_of_first([[0.3, 0.9, 0.5]], [[True, False, True]]).tolist()
        [2.0]
    """
    (matrix,), _ = _check([scores], None)
    mask = np.asarray(relevant)
    if mask.shape != matrix.shape or mask.dtype != bool:
        raise InputError(f"relevant is {mask.dtype}{list(mask.shape)}: bool{list(matrix.shape)}")
    if not mask.any(axis=1).all():
        empty = int(np.argmin(mask.any(axis=1)))
        raise InputError(f"query {empty} has no relevant example: leave it out")
    best = np.max(matrix, axis=1, where=mask, initial=-np.inf)[:, None]
    tied = np.count_nonzero((matrix == best) & ~mask, axis=1)
    return 1 + np.count_nonzero(matrix > best, axis=1) + tied / 2


def _z(rows: np.ndarray) -> np.ndarray:
    deviation = rows.std(axis=1, keepdims=True)
    return (rows - rows.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)


def _check(
    scores: Sequence[ArrayLike] | Mapping[str, ArrayLike], weights: Sequence[float] | None
) -> tuple[list[np.ndarray], np.ndarray]:
    methods = [np.asarray(method, np.float64) for method in scores]
    shapes = {method.shape for method in methods}
    if len(shapes) != 1 or methods[0].ndim != 2 or not methods[0].size:
        raise InputError(f"scores of shapes {sorted(shapes)}: all must be of one shape [K, N]")
    if not all(np.isfinite(method).all() for method in methods):
        raise InputError("scores hold NaN or infinities")
    shares = np.ones(len(methods)) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (len(methods),) or not np.isfinite(shares).all():
        raise InputError(f"{len(methods)} methods but weights {shares.tolist()}: give one each")
    return methods, shares
