"""Inputs from elsewhere under the labels of this set, and which rows these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Int

from jaxinf.datasets.arrays import Examples, as_mask, check_labelled, check_rate, draw_rows
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class Irrelevant:
    """Examples some of which belong to no class at all, and the truth about them.

    Attributes:
        examples: as given, with `"x"` replaced, rows in the same order.
        is_irrelevant: bool[N], which inputs came from elsewhere.
        foreign_row: int64[N], the row of the foreign set that stands there, else -1.
    """

    examples: Examples
    is_irrelevant: Bool[np.ndarray, " N"]
    foreign_row: Int[np.ndarray, " N"]


def irrelevant_examples(
    examples: Mapping[str, Any], foreign: np.ndarray, rate: float, seed: int
) -> Irrelevant:
    """Put inputs of another data set in the place of exactly `round(rate * N)` inputs.

    Labels stay: the foreign inputs are so given classes at random, and the classes stay as large
    as they were. No foreign input is used twice.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        foreign: [M, ...], inputs of another data set or distribution; rows of the shape and dtype
            of those of `"x"`, at least `round(rate * N)` of them.
        rate: fraction of the inputs that is replaced.
        seed: which rows, and which inputs take their place.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], or foreign inputs that are too few or unlike.

    Example:
        >>> clean = {"x": np.zeros((4, 2), np.float32), "y": np.arange(4)}
        >>> mixed = irrelevant_examples(clean, np.ones((9, 2), np.float32), rate=0.5, seed=0)
        >>> mixed.is_irrelevant, mixed.examples["x"][:, 0]
        (array([False, False,  True,  True]), array([0., 0., 1., 1.], dtype=float32))
    """
    check_rate(rate)
    host, count = check_labelled(examples)
    inputs, foreign = host["x"].copy(), np.asarray(foreign)
    if foreign.shape[1:] != inputs.shape[1:] or foreign.dtype != inputs.dtype or not foreign.ndim:
        raise InputError(
            f"rows of foreign are {foreign.dtype}{list(foreign.shape[1:])} and of examples['x'] "
            f"{inputs.dtype}{list(inputs.shape[1:])}: the same is needed"
        )
    rng = np.random.default_rng(seed)
    rows = draw_rows(rng, np.arange(count), rate)
    if len(foreign) < len(rows):
        raise InputError(f"foreign has {len(foreign)} rows, and {len(rows)} are needed")
    taken = rng.choice(len(foreign), size=len(rows), replace=False)
    inputs[rows] = foreign[taken]
    foreign_row = np.full(count, -1)
    foreign_row[rows] = taken
    return Irrelevant({**host, "x": inputs}, as_mask(rows, count), foreign_row)
