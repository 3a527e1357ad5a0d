"""Handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np
from jaxtyping import Int

from jaxinf.datasets.arrays import Examples
from jaxinf.errors import InputError, require_extra


def load_digits(*, test_fraction: float = 0.2, seed: int = 0) -> tuple[Examples, Examples]:
    """Load the 1,797 digits of 8x8 pixels, split with equal class shares on both sides.

    Args:
        test_fraction: share of the examples that goes to the test set, between 0 and 1.
        seed: which split; the same seed gives the same rows.

    Returns:
        `(train, test)`, each `{"x": float32[N, 8, 8, 1] in [0, 1], "y": int32[N]}`.

    Raises:
        InputError: the fraction leaves one side without an example of every class.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> train, test = load_digits()
        >>> train["x"].shape, test["y"].shape
        ((1437, 8, 8, 1), (360,))
    """
    digits = _bunch()
    images = (digits.images[..., None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    train, test = split_digits(test_fraction=test_fraction, seed=seed)
    return (
        {"x": images[train], "y": labels[train]},
        {"x": images[test], "y": labels[test]},
    )


def split_digits(
    *, test_fraction: float = 0.2, seed: int = 0
) -> tuple[Int[np.ndarray, " N_train"], Int[np.ndarray, " N_test"]]:
    """Rows of scikit-learn's own order that `load_digits` puts on each side of the split.

    Args:
        test_fraction: share of the examples that goes to the test set, between 0 and 1.
        seed: which split.

    Returns:
        `(train, test)`, row numbers into `sklearn.datasets.load_digits()`.

    Raises:
        InputError: the fraction leaves one side without an example of every class.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> train, test = split_digits(test_fraction=0.5)
        >>> len(train), len(test), len(np.intersect1d(train, test))
        (898, 899, 0)
    """
    labels = _bunch().target
    num_classes = len(np.unique(labels))
    if not num_classes / len(labels) <= test_fraction <= 1 - num_classes / len(labels):
        raise InputError(
            f"test_fraction is {test_fraction}: both sides need at least one example of each of "
            f"the {num_classes} classes, such as with 0.2"
        )
    split = require_extra("sklearn.model_selection", "cli").train_test_split
    train, test = split(
        np.arange(len(labels)), test_size=test_fraction, random_state=seed, stratify=labels
    )
    return train, test


def _bunch():
    return require_extra("sklearn.datasets", "cli").load_digits()
