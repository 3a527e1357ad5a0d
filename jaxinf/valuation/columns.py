"""Features without a network: scaled inputs, standardised columns, categories as indicators."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_examples, check_finite
from jaxinf.typing import AnyArray


class Standardised(NamedTuple):
    """Two sets on one scale.

    Attributes:
        train: float32[N, d].
        valid: float32[M, d].
        mean: float64[d], what was subtracted.
        std: float64[d], what was divided by; 1 where a column is constant.
        constant: bool[d], columns of one value where the scale was taken; they are 0 on both sides.
    """

    train: Float[np.ndarray, "N d"]
    valid: Float[np.ndarray, "M d"]
    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    constant: Bool[np.ndarray, " d"]


class OneHot(NamedTuple):
    """A column of categories as indicators.

    Attributes:
        train: float32[N, k].
        valid: float32[M, k].
        categories: [k], what each column stands for, sorted.
    """

    train: Float[np.ndarray, "N k"]
    valid: Float[np.ndarray, "M k"]
    categories: np.ndarray


def raw_features(
    x: AnyArray, *, value_range: tuple[float, float] | None = None
) -> Float[np.ndarray, "N d"]:
    """Inputs as they are, flattened, with a stated range mapped to [0, 1].

    Args:
        x: number[N, ...].
        value_range: what becomes 0 and what becomes 1; by default 0 and 255 for uint8, while
            floating-point inputs are left as they are. Other integers need it.

    Returns:
        float32[N, d].

    Raises:
        InputError: for an empty set, NaN or infinities, integers without a range, a range that is
            none, or inputs outside it.

    Example:
        >>> raw_features(np.array([[[0, 255], [51, 102]]], np.uint8))
        array([[0. , 1. , 0.2, 0.4]], dtype=float32)
    """
    count = check_examples(x, "x")
    check_finite(x, "x", first_row=0)
    array = np.asarray(x)
    if value_range is None and array.dtype == np.uint8:
        value_range = (0, 255)
    flat = array.reshape(count, -1).astype(np.float32)
    if value_range is None:
        if array.dtype.kind != "f":
            raise InputError(f"x is {array.dtype}: give value_range, the values of 0 and of 1")
        return flat
    low, high = value_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"value_range is {value_range}: give (lowest, highest)")
    if flat.min() < low or flat.max() > high:
        raise InputError(
            f"x goes from {flat.min():g} to {flat.max():g}, beyond value_range {value_range}"
        )
    return (flat - np.float32(low)) / np.float32(high - low)


def standardise(
    train: AnyArray, valid: AnyArray, *, by: Literal["train", "valid", "both"] = "train"
) -> Standardised:
    """Give every column mean 0 and standard deviation 1, so that no unit of measurement decides.

    Distances between rows of unscaled tables are those of the column with the largest numbers: a
    valuation of such tables can fall under chance. A column of one value carries nothing, and has
    no scale: it becomes 0 on **both** sides, even where the other side's values differ.

    Args:
        train: float[N, d], or any trailing axes, which are flattened.
        valid: float[M, d], of the same width.
        by: whose mean and standard deviation are used; `"valid"` where the training set may hold
            wild values, since the validation set is the trusted one.

    Returns:
        Both sets scaled, and how.

    Raises:
        InputError: for an empty set, NaN or infinities, sets of unlike width, or an unknown `by`.

    Example:
        >>> scaled = standardise(np.float32([[0, 5], [1000, 5]]), np.float32([[500, 7]]))
        >>> scaled.train.tolist(), scaled.valid.tolist(), scaled.constant.tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]], [False, True])
    """
    if by not in ("train", "valid", "both"):
        raise InputError(f"by is {by!r}: give 'train', 'valid' or 'both'")
    sides = {name: _matrix(x, name) for name, x in (("train", train), ("valid", valid))}
    widths = [side.shape[1] for side in sides.values()]
    if widths[0] != widths[1]:
        raise InputError(
            f"train has {widths[0]} columns and valid {widths[1]}: the same are needed"
        )
    given = np.concatenate(list(sides.values())) if by == "both" else sides[by]
    mean, std = given.mean(axis=0), given.std(axis=0)
    # not std == 0: the mean of equal numbers may miss them by a rounding
    constant = (given == given[0]).all(axis=0)
    std = np.where(constant | (std == 0), 1.0, std)
    scaled = [
        np.where(constant, 0.0, (side - mean) / std).astype(np.float32) for side in sides.values()
    ]
    return Standardised(scaled[0], scaled[1], mean, std, constant)


def one_hot(train: ArrayLike, valid: ArrayLike) -> OneHot:
    """Turn a column of categories into one indicator column per category met on either side.

    Two rows of unlike category lie √2 apart, as two draws of a standardised column do on average
    (in the mean square): indicators need no further scaling beside standardised columns.

    Args:
        train: [N], text, integers or booleans.
        valid: [M], the same kind.

    Returns:
        The indicators and what they stand for.

    Raises:
        InputError: for something else than two columns of one kind.

    Example:
        >>> found = one_hot(["red", "blue", "red"], ["green"])
        >>> found.categories.tolist(), found.train[0].tolist(), found.valid[0].tolist()
        (['blue', 'green', 'red'], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0])
    """
    columns = [np.asarray(column) for column in (train, valid)]
    for name, column in zip(("train", "valid"), columns, strict=True):
        if column.ndim != 1 or not column.size:
            raise InputError(f"{name} has shape {column.shape}: one category per row is needed")
    kinds = {"text" if column.dtype.kind in "OSU" else "numbers" for column in columns}
    if len(kinds) > 1:
        raise InputError("train and valid hold text on one side and numbers on the other")
    both = np.concatenate(
        [column.astype(str) if kinds == {"text"} else column for column in columns]
    )
    categories, positions = np.unique(both, return_inverse=True)
    indicators = (positions[:, None] == np.arange(len(categories))).astype(np.float32)
    cut = len(columns[0])
    return OneHot(indicators[:cut], indicators[cut:], categories)


def _matrix(x: Any, name: str) -> Float[np.ndarray, "N d"]:
    # tables come as float64, whatever jax keeps: the result is float32
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" or array.ndim < 2 or not array.size:
        raise InputError(
            f"{name} is {array.dtype}{list(array.shape)}: numbers [rows, columns] are needed "
            "(categories go through one_hot first)"
        )
    matrix = array.reshape(len(array), -1).astype(np.float64)
    check_finite(matrix, name, first_row=0)
    return matrix
