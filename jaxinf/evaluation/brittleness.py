"""Brittleness: does the prediction flip when its strongest supporters are removed?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_matrix, check_top
from jaxinf.evaluation.hits import top_k_indices
from jaxinf.evaluation.intervals import Interval, clopper_pearson

Retrain: TypeAlias = Callable[[Bool[np.ndarray, "S N"]], ArrayLike]
"""`retrain(subsets) -> int[S, K]`: the classes that a model of each subset predicts."""


@dataclass(frozen=True)
class Brittleness:
    """What removing the top-scored examples does.

    Attributes:
        counts: how many examples were removed, one entry per step.
        flipped: bool[C, K], whether each query's prediction then changed.
        shares: the share of flipped queries at each step, with its Clopper–Pearson interval.
    """

    counts: tuple[int, ...]
    flipped: Bool[np.ndarray, "C K"]
    shares: tuple[Interval, ...]


def brittleness(
    scores: ArrayLike,
    retrain: Retrain,
    predictions: ArrayLike,
    *,
    counts: Sequence[int],
    confidence: float = 0.95,
) -> Brittleness:
    """Remove each query's k highest-scored examples, train again, and count the flips.

    C · K models are trained. A method is the better the fewer examples it needs; random scores,
    and the nearest examples of the query's own class, are what to compare with.

    Args:
        scores: float[K, N], positive = training on the example lowers the query's loss.
        retrain: `retrain(subsets bool[S, N]) -> int[S, K]`, such as a `retrain_on_subsets` whose
            `train_fn` returns the classes predicted for the K queries.
        predictions: int[K], the classes predicted by the model of all examples; best taken of
            queries that it gets right, trained with the same settings.
        counts: how many examples to remove, each 1 to N - 1.
        confidence: level of the intervals.

    Returns:
        `Brittleness`.

    Raises:
        InputError: for scores, predictions or counts that do not fit, or a `retrain` that returns
            another shape.

    Example:
        >>> majority = lambda subsets: (subsets @ np.array([1, 1, -1]) < 0)[:, None].astype(int)
        >>> found = brittleness([[0.9, 0.8, -0.5]], majority, [0], counts=[1, 2])
        >>> found.flipped[:, 0].tolist()
        [False, True]
    """
    matrix = as_matrix(scores, "scores")
    num_queries, num_examples = matrix.shape
    before = np.asarray(predictions)
    if before.shape != (num_queries,) or before.dtype.kind not in "iu":
        raise InputError(
            f"predictions are {before.dtype}{list(before.shape)}: one class per query is needed, "
            f"[{num_queries}]"
        )
    steps = tuple(int(count) for count in counts)
    if not steps:
        raise InputError("counts is empty: say how many examples to remove")
    for count in steps:
        check_top(count, num_examples)
        if count == num_examples:
            raise InputError(f"counts holds {count}: that leaves no example to train on")
    kept = np.ones((len(steps), num_queries, num_examples), bool)
    for step, count in enumerate(steps):
        np.put_along_axis(kept[step], top_k_indices(matrix, count), False, axis=1)
    after = np.asarray(retrain(kept.reshape(-1, num_examples)))
    if after.shape != (len(steps) * num_queries, num_queries):
        raise InputError(
            f"retrain returned {list(after.shape)}: one class per subset and query is needed, "
            f"[{len(steps) * num_queries}, {num_queries}]"
        )
    own = np.diagonal(after.reshape(len(steps), num_queries, num_queries), axis1=1, axis2=2)
    flipped = own != before
    shares = (clopper_pearson(int(row.sum()), len(row), confidence=confidence) for row in flipped)
    return Brittleness(steps, flipped, tuple(shares))
