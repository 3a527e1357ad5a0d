"""Rows grouped by class: what the label-to-label distances are computed from."""

from typing import NamedTuple

import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from jaxinf.errors import InputError, check_finite
from jaxinf.typing import AnyArray


class ClassBlocks(NamedTuple):
    """The rows of each class, padded to a little over the size of the largest.

    Attributes:
        rows: int32[C, S], numbers of rows; padding repeats a row of the class.
        weights: float32[C, S], shares of the class's mass, 0 for padding, a sum of 1 per class.
    """

    rows: Int[np.ndarray, "C S"]
    weights: Float[np.ndarray, "C S"]


def class_blocks(
    labels: Int[np.ndarray, " N"] | Float[np.ndarray, "N C"], num_classes: int
) -> ClassBlocks:
    """Group rows by class; soft labels give a row to every class that it has a share of.

    Args:
        labels: int[N] in 0 .. C − 1, each class met at least once; or float[N, C] shares.
        num_classes: C.

    Returns:
        The blocks, rows in ascending order within each class.

    Example:
        >>> blocks = class_blocks(np.array([0, 1, 0]), 2)
        >>> blocks.rows.tolist(), blocks.weights.tolist()
        ([[0, 2], [1, 1]], [[0.5, 0.5], [1.0, 0.0]])
    """
    if labels.ndim == 2:
        members = [np.flatnonzero(labels[:, c] > 0) for c in range(num_classes)]
        shares = [labels[rows, c] for c, rows in enumerate(members)]
    else:
        order = np.argsort(labels, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])
        shares = [np.ones(len(rows)) for rows in members]
    size = _rounded_up(max(len(rows) for rows in members))
    rows = np.zeros((num_classes, size), np.int32)
    weights = np.zeros((num_classes, size), np.float32)
    for c, (numbers, share) in enumerate(zip(members, shares, strict=True)):
        rows[c] = numbers[0]
        rows[c, : len(numbers)] = numbers
        weights[c, : len(numbers)] = share / share.sum()
    return ClassBlocks(rows, weights)


def _rounded_up(size: int) -> int:
    """To 4 binary digits: an eighth more at most, and other labels seldom need another program."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


def bin_targets(
    train_targets: AnyArray, valid_targets: AnyArray, *, num_bins: int = 10
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " M"]]:
    """Cut a regression target into classes at the quantiles of the validation targets.

    Args:
        train_targets: float[N].
        valid_targets: float[M].
        num_bins: how many classes to aim at; ties in the targets may leave fewer.

    Returns:
        The class of each training and of each validation example, int32.

    Raises:
        InputError: for arrays that are not one number per example, NaN or Inf, or fewer
            than two bins.

    Example:
        >>> train, valid = bin_targets(np.array([0.1, 9.0]), np.arange(4.0), num_bins=2)
        >>> train.tolist(), valid.tolist()
        ([0, 1], [0, 0, 1, 1])
    """
    if num_bins < 2:
        raise InputError(f"num_bins must be at least 2, not {num_bins}")
    for targets, name in ((train_targets, "train_targets"), (valid_targets, "valid_targets")):
        if np.ndim(targets) != 1 or np.size(targets) == 0:
            raise InputError(f"{name} must be one number per example, not {np.shape(targets)}")
        check_finite(targets, name, first_row=0)
    train, valid = np.asarray(train_targets), np.asarray(valid_targets)
    edges = np.unique(np.quantile(valid, np.arange(1, num_bins) / num_bins))
    return (
        np.searchsorted(edges, train, side="right").astype(np.int32),
        np.searchsorted(edges, valid, side="right").astype(np.int32),
    )


def soft_shares(labels: AnyArray, count: int, side: str) -> Float[np.ndarray, "N C"]:
    """Check soft labels: shares that are not negative and sum to one.

    Raises:
        InputError: naming the side and the first bad row.

    Example:
        >>> soft_shares(np.array([[0.5, 0.5], [0.9, 0.2]], np.float32), 2, "train")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: train_labels[1] sum to 1.1, not to 1: soft labels are shares
    """
    if isinstance(labels, Tracer):
        raise InputError(f"{side}_labels are traced: close over them, the classes are structure")
    shares = np.asarray(labels)
    if shares.ndim != 2 or shares.shape[0] != count:
        raise InputError(f"{side}_labels must be [{count}, classes], not {shares.shape}")
    check_finite(shares, f"{side}_labels", first_row=0)
    negative = np.flatnonzero((shares < 0).any(axis=1))
    if negative.size:
        raise InputError(f"{side}_labels[{negative[0]}] hold a negative share")
    sums = shares.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > 1e-3)
    if off.size:
        raise InputError(
            f"{side}_labels[{off[0]}] sum to {sums[off[0]]:.3g}, not to 1: soft labels are shares"
        )
    empty = np.flatnonzero(shares.sum(axis=0) == 0)
    if empty.size:
        raise InputError(
            f"no example has a share of class {empty[0]} in {side}_labels: leave that column out "
            "on this side"
        )
    return shares.astype(np.float32)
