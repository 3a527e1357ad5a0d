"""Scores relative to what each training example scores for queries that it has no part in."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix


def relative_to_reference(
    scores: ArrayLike, reference: ArrayLike, *, floor: float = 1e-6
) -> Float[np.ndarray, "K N"]:
    """Divide each training example's scores by their size over reference queries.

    Examples with large gradients score high for every query. What an example scores for R other
    queries measures that with the very passes that scoring takes anyway: with the directions of
    the reference queries as probes it estimates the norm of the example's gradient within their
    span, from forward passes alone.

    Sign: as the scores'.

    Args:
        scores: float[K, N].
        reference: float[R, N], scores of other queries against the same training examples, such
            as of clean ones. Not those that calibrate: a query's own scores would enter what
            they are divided by, and its statistic would no longer compare with the others'.
        floor: added to each size, in units of the median size.

    Returns:
        float64[K, N].

    Raises:
        InputError: for scores that are not [K, N] and [R, N], NaN, or a floor that is not
            positive.

    Example:
        >>> loud = np.array([[1.0, 100.0, 1.0], [-2.0, 200.0, -2.0]])
        >>> relative_to_reference([[3.0, 100.0, 1.0]], loud).round(2).tolist()
        [[3.0, 1.0, 1.0]]
    """
    matrix, others = as_matrix(scores, "scores"), as_matrix(reference, "reference")
    if matrix.shape[1] != others.shape[1]:
        raise InputError(
            f"scores are {matrix.shape[1]} and reference {others.shape[1]} wide: both must be of "
            "the same training examples"
        )
    if not floor > 0:
        raise InputError(f"floor is {floor}: a positive number")
    # a loud reference query must not outweigh the others; by the median, since the mean would be
    # that of the few loudest training examples
    loudness = np.median(np.abs(others), axis=1, keepdims=True)
    others = others / np.where(loudness > 0, loudness, 1)
    size = np.sqrt(np.mean(np.square(others), axis=0))
    middle = float(np.median(size))
    return matrix / (size + floor * (middle if middle > 0 else 1.0))
