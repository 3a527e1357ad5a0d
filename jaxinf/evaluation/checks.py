"""Input checks that the metrics share."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError


def as_matrix(values: ArrayLike, name: str) -> Float[np.ndarray, "K N"]:
    """Bring a matrix of scores to the host; refuse NaN, other ranks and empty ones.

    Raises:
        InputError: naming what is wrong.
    """
    matrix = np.asarray(values)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"{name} has shape {matrix.shape}: one row per query is needed, [K, N]")
    return _as_numbers(matrix, name)


def as_vector(values: ArrayLike, name: str) -> Float[np.ndarray, " N"]:
    """Bring a vector of numbers to the host; refuse NaN, other ranks and empty ones.

    Raises:
        InputError: naming what is wrong.
    """
    vector = np.asarray(values)
    if vector.ndim != 1 or not vector.size:
        raise InputError(f"{name} has shape {vector.shape}: one number per example is needed, [N]")
    return _as_numbers(vector, name)


def check_same_shape(a: np.ndarray, b: np.ndarray, names: str) -> None:
    """Refuse two arrays of different shapes.

    Raises:
        InputError: naming both.
    """
    if a.shape != b.shape:
        raise InputError(f"{names} have shapes {a.shape} and {b.shape}: the same is needed")


def check_top(k: int, count: int) -> None:
    """Refuse a cut-off outside `1 .. count`.

    Raises:
        InputError: naming the value.
    """
    if not 1 <= k <= count:
        raise InputError(f"k is {k}: give 1 to {count}, the number of scores per query")


def check_confidence(confidence: float) -> None:
    """Refuse a confidence level outside (0, 1).

    Raises:
        InputError: naming the value.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: give a level between 0 and 1, such as 0.95")


def _as_numbers(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind in "OUSMmc":
        raise InputError(f"{name} are {array.dtype}, not real numbers")
    array = array.astype(np.float64)
    if np.isnan(array).any():
        raise InputError(f"{name} hold {int(np.isnan(array).sum())} NaN, which has no rank")
    return array
