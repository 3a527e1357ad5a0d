"""Subsets that leave every example out equally often: the most that few models can tell."""

import numpy as np
from jaxtyping import Bool

from jaxinf.errors import InputError, check_count


def fold_subsets(
    num_folds: int, num_examples: int, *, repeats: int = 1, seed: int
) -> Bool[np.ndarray, "S N"]:
    """Draw the training sets of repeated cross-fitting: each leaves one random fold out.

    Every example is left out by exactly `repeats` of the `repeats * num_folds` models, where
    independent subsets would leave some out often and others never.

    Args:
        num_folds: k, at least 2. Models see a share 1 − 1/k of the examples.
        num_examples: N, at least k.
        repeats: how often the examples are divided anew.
        seed: the division.

    Returns:
        bool[repeats * k, N], True = the example is trained on. Where k does not divide N, the
        folds of a division differ by one example; models of each size compile anew.

    Raises:
        InputError: for counts that mean nothing.

    Example:
        >>> subsets = fold_subsets(2, 6, repeats=3, seed=0)
        >>> subsets.shape, subsets.sum(axis=0)
        ((6, 6), array([3, 3, 3, 3, 3, 3]))
    """
    check_count(num_folds, "num_folds", 2)
    check_count(repeats, "repeats")
    check_count(num_examples, "num_examples")
    if num_examples < num_folds:
        raise InputError(f"{num_folds} folds of {num_examples} examples: some would be empty")
    rng = np.random.default_rng(seed)
    folds = np.tile(np.arange(num_examples) % num_folds, (repeats, 1))
    folds = rng.permuted(folds, axis=1)
    return (folds[:, None, :] != np.arange(num_folds)[None, :, None]).reshape(-1, num_examples)
