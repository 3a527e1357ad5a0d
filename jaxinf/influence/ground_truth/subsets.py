"""Random subsets of a training set, and what a set of subsets must be to train on them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.influence.passes import is_traced

# Whole numbers of more values than this, or that are there less often on average, need not be
# classes; and half of so few examples may lack one by chance alone.
_MOST_CLASSES = 1000
_LEAST_EXAMPLES = 10


def draw_subsets(
    num_subsets: int, num_examples: int, *, fraction: float = 0.5, seed: int
) -> Bool[np.ndarray, "S N"]:
    """Draw subsets of one size, uniformly and independently of each other.

    Args:
        num_subsets: S.
        num_examples: N.
        fraction: share of the examples in each, rounded to a whole number of them.
        seed: the draws.

    Returns:
        bool[S, N], True = the example is in the subset.

    Raises:
        InputError: for counts below 1, or a fraction that leaves none or all of the examples.

    Example:
        >>> draw_subsets(3, 10, seed=0).sum(axis=1)
        array([5, 5, 5])
    """
    if num_subsets < 1 or num_examples < 1:
        raise InputError(f"{num_subsets} subsets of {num_examples} examples: at least 1 of each")
    size = round(fraction * num_examples) if np.isfinite(fraction) else 0
    if not 0 < size < num_examples:
        raise InputError(
            f"fraction is {fraction}: of {num_examples} examples that is {size}, and between 1 and "
            f"{num_examples - 1} are needed"
        )
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(num_examples) < size, (num_subsets, 1)), axis=1)


def class_labels(data: Any, count: int) -> Int[np.ndarray, " N"] | None:
    """The classes in training data, where `data["y"]` looks like them.

    Args:
        data: anything.
        count: N.

    Returns:
        int[N]; None for anything but a mapping whose "y" is N whole numbers of at most 1000
        different values, each there ten times on average: not floats, tokens [N, T] or numbers
        that tell the examples apart.

    Example:
        >>> found = class_labels({"x": np.zeros((30, 1)), "y": np.arange(30) % 3}, 30)
        >>> found[:5]
        array([0, 1, 2, 0, 1])
        >>> class_labels({"y": np.arange(30)}, 30) is None
        True
    """
    given = data.get("y") if isinstance(data, Mapping) else None
    if not isinstance(given, np.ndarray | jax.Array) or is_traced(given):
        return None
    if given.shape != (count,) or given.dtype.kind not in "iu":
        return None
    labels = np.asarray(given)
    most = min(_MOST_CLASSES, count / _LEAST_EXAMPLES)
    return labels if len(np.unique(labels)) <= most else None


def check_subsets(
    subsets: ArrayLike, labels: ArrayLike | None = None, *, allow_missing_classes: bool = False
) -> Bool[np.ndarray, "S N"]:
    """Check subsets, and that each still holds every class.

    Args:
        subsets: bool[S, N].
        labels: int[N]; None skips the check of the classes.
        allow_missing_classes: skip it, too.

    Returns:
        bool[S, N], on the host.

    Raises:
        InputError: for a mask of another shape or dtype, a subset without examples, labels that
            do not fit, or naming the first subset that lacks a class.

    Example:
        >>> check_subsets(np.array([[True, True], [True, False]]), np.array([0, 1]))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: subset 1 has no example of class 1 ...
    """
    masks = np.asarray(subsets)
    if masks.ndim != 2 or masks.dtype != bool or not masks.size:
        raise InputError(
            f"subsets is {masks.dtype}{list(masks.shape)}: a bool mask [S, N] is needed"
        )
    sizes = masks.sum(axis=1)
    if not sizes.all():
        raise InputError(f"subset {int(np.argmin(sizes))} is empty: there is nothing to train on")
    if labels is None:
        return masks
    given = np.asarray(labels)
    if given.shape != masks.shape[1:] or given.dtype.kind not in "iu":
        raise InputError(
            f"labels are {given.dtype}{list(given.shape)}: one class per example is needed, "
            f"[{masks.shape[1]}]"
        )
    if allow_missing_classes:
        return masks
    classes, positions = np.unique(given, return_inverse=True)
    counts = masks.astype(np.int64) @ np.eye(len(classes), dtype=np.int64)[positions]
    missing = np.argwhere(counts == 0)
    if len(missing):
        subset, at = missing[0]
        others = f", and {len(missing) - 1} more such gaps" if len(missing) > 1 else ""
        raise InputError(
            f"subset {subset} has no example of class {classes[at]} ({int(sizes[subset])} of "
            f"{masks.shape[1]} examples{others}): take larger subsets, or pass "
            "allow_missing_classes=True"
        )
    return masks
