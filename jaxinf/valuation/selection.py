"""Budgeted selection: which rows to keep, buy or label first."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError


def select(
    values: ArrayLike,
    *,
    budget: float,
    cost: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> Int[np.ndarray, " n"]:
    """Pick the rows most worth having within a budget.

    Args:
        values: float[N], higher = more worth having.
        budget: without `cost`, how many rows, 1 to N. With it, what they may cost together.
        cost: float[N], positive. Rows are then bought in order of value per cost, those that no
            longer fit are passed over, and **rows of value 0 or less are not bought**: the sum of
            values is made large, to within the value of one row. Where their zero means nothing,
            shift the values first.
        labels: [N]; when given, the classes take turns, each with its best row that is left, until
            the budget is spent: classes end equally large as far as their rows go.

    Returns:
        Row numbers, in the order in which they were picked (the best first; of equals, the lower
        row first).

    Raises:
        InputError: for arrays that do not fit each other, NaN or infinities, costs that are not
            positive, or a budget out of range.

    Example:
        >>> select([3.0, 1.0, 2.0], budget=2).tolist()
        [0, 2]
        >>> select([3.0, 1.0, 2.0], budget=2, labels=["a", "b", "a"]).tolist()
        [0, 1]
        >>> select([3.0, 1.0, 2.0], budget=3, cost=[3.0, 1.0, 1.0]).tolist()
        [2, 1]
    """
    vector = check_values(values)
    count = len(vector)
    if cost is None:
        if int(budget) != budget or not 1 <= budget <= count:
            raise InputError(f"budget is {budget}: give 1 to {count}, a number of rows")
        return _order(vector, labels, np.arange(count))[: int(budget)]
    prices = np.asarray(cost, np.float64)
    if prices.shape != vector.shape:
        raise InputError(f"cost has shape {prices.shape}: give one per row, [{count}]")
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise InputError("cost must be positive for every row")
    if not (budget > 0 and np.isfinite(budget)):
        raise InputError(f"budget is {budget}: give a positive amount, in the units of cost")
    worthwhile = np.flatnonzero(vector > 0)
    return _afford(_order(vector / prices, labels, worthwhile), prices, budget)


def _order(merit: np.ndarray, labels: ArrayLike | None, rows: np.ndarray) -> np.ndarray:
    """Rows by merit; with labels, first the best of each class, then the second best, ..."""
    best_first = rows[np.argsort(-merit[rows], kind="stable")]
    if labels is None:
        return best_first
    given = np.asarray(labels)
    if given.shape != merit.shape:
        raise InputError(f"labels have shape {given.shape}: give one per row, [{len(merit)}]")
    _, group = np.unique(given[best_first], return_inverse=True)
    # position within the own class: sort by class, and count from where the class begins
    by_class = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))[:-1]]) if len(group) else group
    turn = np.empty(len(group), np.int64)
    turn[by_class] = np.arange(len(group)) - starts[group[by_class]]
    return best_first[np.argsort(turn, kind="stable")]


def _afford(order: np.ndarray, prices: np.ndarray, budget: float) -> np.ndarray:
    """Buy in order whatever still fits."""
    bought, left = [], float(budget)
    while order.size:
        # as far as the money goes in one sweep; then only what is cheap enough remains in question
        spent = np.cumsum(prices[order])
        reach = int(np.searchsorted(spent, left, side="right"))
        bought.append(order[:reach])
        left -= float(spent[reach - 1]) if reach else 0.0
        rest = order[reach:]
        order = rest[prices[rest] <= left]
    return np.concatenate(bought) if bought else order


def check_values(values: ArrayLike) -> Float[np.ndarray, " N"]:
    """Bring the values of examples to the host as float64; refuse what has no order.

    Raises:
        InputError: for another shape, an empty one, or NaN or infinities.
    """
    vector = np.asarray(values)
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "fiub":
        raise InputError(f"values have shape {vector.shape}: one number per example is needed, [N]")
    vector = vector.astype(np.float64)
    if not np.isfinite(vector).all():
        bad = int(np.argmin(np.isfinite(vector)))
        raise InputError(f"values hold NaN or infinities, first in example {bad}")
    return vector
