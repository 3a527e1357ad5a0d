"""Do the scores predict what retraining does? Correlations per query."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix, check_same_shape


def pearson(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, " K"]:
    """Pearson correlation of each row of a with the same row of b.

    Args:
        a: float[K, N], such as the scores of N examples for K queries.
        b: float[K, N], such as the effect of leaving each example out.

    Returns:
        float64[K], -1 to 1; NaN, which is to say undefined, for a row that is constant.

    Raises:
        InputError: for arrays that are not [K, N] with N of at least 2, differ in shape, or
            hold NaN or infinities.

    Example:
        >>> pearson([[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0]]).round(6)
        array([1.])
    """
    return _pearson(*_pair(a, b))


def spearman(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, " K"]:
    """Spearman rank correlation of each row of a with the same row of b.

    Args:
        a: float[K, N].
        b: float[K, N].

    Returns:
        float64[K], -1 to 1, ties sharing their mean rank; NaN, which is to say undefined, for
        a row that is constant.

    Raises:
        InputError: as `pearson`.

    Example:
        >>> spearman([[1.0, 2.0, 3.0]], [[1.0, 10.0, 5.0]])
        array([0.5])
    """
    first, second = _pair(a, b)
    return _pearson(rankdata(first, axis=1), rankdata(second, axis=1))


def linear_datamodeling_score(
    scores: ArrayLike, subsets: ArrayLike, outputs: ArrayLike
) -> Float[np.ndarray, " K"]:
    """Rank correlation between what scores predict for models of subsets and what these do.

    For each query: the sum of the scores over every subset, correlated (Spearman) over the
    subsets with the output of the model retrained on it.

    Args:
        scores: float[K, N], positive = training on the example raises the query's output.
        subsets: bool[S, N], which examples each of the S retrained models saw.
        outputs: float[S, K], the output of each retrained model on each query, higher =
            better: a margin or minus the loss, averaged over seeds where there are several.

    Returns:
        float64[K], -1 to 1, 1 = the order is predicted perfectly; their mean is the usual
        figure. NaN, which is to say undefined, for a query whose sums or outputs are constant.

    Raises:
        InputError: for shapes that do not fit together, subsets that are not bool, fewer than
            3 of them, NaN or infinities.

    Reference:
        Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023 (arXiv 2303.14186).

    Example:
        >>> subsets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
        >>> true = np.array([[3.0, -1.0, 2.0]])
        >>> linear_datamodeling_score(true, subsets, subsets @ true.T)
        array([1.])
    """
    matrix, results = as_matrix(scores, "scores"), as_matrix(outputs, "outputs")
    masks = np.asarray(subsets)
    if masks.dtype != bool or masks.ndim != 2:
        raise InputError(
            f"subsets is {masks.dtype}{list(masks.shape)}: a bool mask [S, N] is needed"
        )
    if masks.shape[1] != matrix.shape[1] or results.shape != (len(masks), len(matrix)):
        raise InputError(
            f"scores {list(matrix.shape)}, subsets {list(masks.shape)} and outputs "
            f"{list(results.shape)} do not fit: [K, N], [S, N] and [S, K] are needed"
        )
    if len(masks) < 3:
        raise InputError(f"{len(masks)} subsets: a rank correlation needs at least 3, better 50")
    predicted = matrix @ masks.T.astype(np.float64)
    # sums that differ by rounding alone are ties: a power of two keeps exact multiples exact
    step = np.abs(matrix).sum(axis=1, keepdims=True) * 2.0**-40
    return spearman(np.rint(predicted / np.where(step > 0, step, 1)), results.T)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = as_matrix(a, "the first scores"), as_matrix(b, "the second scores")
    check_same_shape(first, second, "the two sets of scores")
    if first.shape[1] < 2:
        raise InputError("one score per query: a correlation needs at least 2")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("the scores hold infinities, which have no correlation")
    return first, second


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip(np.sum(_unit(a) * _unit(b), axis=1), -1, 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    # of a constant row the mean may differ by rounding, so it is found before the mean is taken
    constant = (rows == rows[:, :1]).all(axis=1, keepdims=True)
    centred = rows - rows.mean(axis=1, keepdims=True)
    # scaled before squaring, so that very small or large scores neither vanish nor overflow
    centred = centred / np.where(constant, 1, np.abs(centred).max(axis=1, keepdims=True))
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(constant, np.nan, length)
