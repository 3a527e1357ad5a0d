"""Classes of unequal size, and which rows were kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Int
from numpy.typing import ArrayLike

from jaxinf.datasets.arrays import Examples, check_labelled
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class Imbalance:
    """A thinned set, and the truth about it.

    Attributes:
        examples: the kept rows, in their original order.
        kept: int64[n], original row of each.
    """

    examples: Examples
    kept: Int[np.ndarray, " n"]


def class_imbalance(
    examples: Mapping[str, Any],
    *,
    class_fractions: ArrayLike | None = None,
    imbalance_factor: float | None = None,
    seed: int,
) -> Imbalance:
    """Keep a fraction of each class: given one by one, or falling exponentially.

    Of a class with n examples `round(fraction * n)` are kept, and at least one unless its
    fraction is 0.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        class_fractions: float[C] in [0, 1], the fraction of each class that is kept.
        imbalance_factor: fraction of the first class over that of the last, at least 1; class c
            of C keeps `factor ** (-c / (C - 1))`. Give either this or `class_fractions`.
        seed: which examples.

    Returns:
        The kept examples and their original rows.

    Raises:
        InputError: for both or neither of the two, fractions outside [0, 1] or all 0, a factor
            under 1, or labels out of range.

    Reference:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019
        (arXiv 1901.05555), for the exponential profile.

    Example:
        >>> balanced = {"x": np.zeros((6, 1), np.float32), "y": np.array([0, 0, 0, 1, 1, 1])}
        >>> class_imbalance(balanced, imbalance_factor=3, seed=0).examples["y"]
        array([0, 0, 0, 1], dtype=int32)
    """
    if (class_fractions is None) == (imbalance_factor is None):
        raise InputError("give either class_fractions or imbalance_factor")
    if class_fractions is not None:
        fractions = np.asarray(class_fractions, np.float64)
        if fractions.ndim != 1 or not ((fractions >= 0) & (fractions <= 1)).all():
            raise InputError("class_fractions must be one fraction between 0 and 1 per class")
        host, _ = check_labelled(examples, num_classes=len(fractions))
    else:
        host, _ = check_labelled(examples)
        fractions = _exponential(float(imbalance_factor or 0), int(host["y"].max()) + 1)
    rng = np.random.default_rng(seed)
    kept = np.sort(
        np.concatenate(
            [
                _draw(rng, np.flatnonzero(host["y"] == label), fraction)
                for label, fraction in enumerate(fractions)
            ]
        )
    )
    if not kept.size:
        raise InputError("class_fractions keep no example at all: raise one of them")
    return Imbalance({key: value[kept] for key, value in host.items()}, kept)


def _exponential(factor: float, num_classes: int) -> np.ndarray:
    if not (factor >= 1 and np.isfinite(factor)):
        raise InputError(f"imbalance_factor is {factor}: give 1 or more")
    return factor ** (-np.arange(num_classes) / max(num_classes - 1, 1))


def _draw(rng: np.random.Generator, rows: np.ndarray, fraction: float) -> np.ndarray:
    count = max(round(fraction * len(rows)), 1 if fraction > 0 and len(rows) else 0)
    return rng.choice(rows, size=count, replace=False)
