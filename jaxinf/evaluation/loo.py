"""Do the scores predict what leaving an example out does?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix
from jaxinf.evaluation.correlation import pearson, spearman


@dataclass(frozen=True)
class LooCorrelation:
    """Agreement of scores with leave-one-out influence, per query.

    Attributes:
        pearson: float64[K], whether the sizes agree up to one factor; NaN where undefined.
        spearman: float64[K], whether the order agrees; NaN where undefined.
    """

    pearson: Float[np.ndarray, " K"]
    spearman: Float[np.ndarray, " K"]


def loo_correlation(
    scores: ArrayLike, influences: ArrayLike, *, rows: ArrayLike | None = None
) -> LooCorrelation:
    """Correlate scores with leave-one-out influence over the training examples.

    Pearson's is led by the few examples with large influence, Spearman's by the many with next
    to none: show both.

    Args:
        scores: float[K, N], positive = training on the example lowers the query's loss.
        influences: float[K, R], the query's loss without the example minus with it.
        rows: int[R], which of the N examples were left out; all of them by default.

    Returns:
        `LooCorrelation`.

    Raises:
        InputError: for shapes that do not fit together, rows out of range, fewer than 2 of them,
            NaN or infinities.

    Example:
        >>> loo_correlation([[3.0, 9.0, 1.0, 2.0]], [[6.0, 2.0, 4.0]], rows=[0, 2, 3])
        LooCorrelation(pearson=array([1.]), spearman=array([1.]))
    """
    matrix = as_matrix(scores, "scores")
    if rows is not None:
        chosen = np.asarray(rows)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not chosen.size:
            raise InputError(f"rows are {chosen.dtype}{list(chosen.shape)}: row numbers [R]")
        if chosen.min() < 0 or chosen.max() >= matrix.shape[1]:
            raise InputError(
                f"rows reach from {chosen.min()} to {chosen.max()}, but there are scores of "
                f"{matrix.shape[1]} examples"
            )
        matrix = matrix[:, chosen]
    found = pearson(matrix, influences), spearman(matrix, influences)
    return LooCorrelation(*(np.round(each, 12) for each in found))
