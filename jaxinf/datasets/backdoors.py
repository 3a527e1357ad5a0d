"""Backdoor triggers: images that carry a mark and the label of the attacker's choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from jaxinf.datasets.arrays import (
    Examples,
    as_mask,
    cast_back,
    check_images,
    check_labelled,
    check_rate,
    draw_rows,
)
from jaxinf.errors import InputError

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]


@register_dataclass
@dataclass(frozen=True, eq=False)
class Backdoor:
    """Examples some of which carry a trigger, and the truth about them.

    Attributes:
        examples: as given, with `"x"` and `"y"` replaced, rows in the same order.
        is_poisoned: bool[N], which rows carry the trigger and the target label.
        original_labels: int32[N], the labels as they were.
    """

    examples: Examples
    is_poisoned: Bool[np.ndarray, " N"]
    original_labels: Int[np.ndarray, " N"]


def patch_trigger(
    examples: Mapping[str, Any],
    rate: float,
    target_class: int,
    *,
    size: int = 3,
    value: ArrayLike | None = None,
    corner: Corner = "bottom_right",
    seed: int,
) -> Backdoor:
    """Stamp a square patch into a corner of some images and give them the target label.

    Exactly `round(rate * n)` of the n examples of other classes are poisoned. With `rate=1` on
    a test set, accuracy on the poisoned rows is the success rate of the attack.

    Args:
        examples: `{"x": [N, H, W] or [N, H, W, C], "y": int[N]}`.
        rate: fraction of the examples of other classes that is poisoned.
        target_class: the label that poisoned examples get, among the classes of the set.
        size: side of the patch in pixels, at most the shorter side of the images.
        value: pixel value of the patch in the units of `"x"`, one number or one per channel;
            by default 255 for uint8 and the largest value of `"x"` otherwise.
        corner: `"top_left"`, `"top_right"`, `"bottom_left"` or `"bottom_right"`.
        seed: which examples.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], a target class out of range, inputs that are not
            images, or a patch, value or corner that does not fit them.

    Reference:
        Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply
        Chain", 2017 (arXiv 1708.06733).

    Example:
        >>> clean = {"x": np.zeros((4, 5, 5, 1), np.uint8), "y": np.array([0, 1, 1, 1])}
        >>> dirty = patch_trigger(clean, rate=1.0, target_class=0, size=2, seed=0)
        >>> dirty.is_poisoned, int(dirty.examples["x"][1].sum()) == 4 * 255
        (array([False,  True,  True,  True]), True)
    """
    host, rows = draw_victims(examples, rate, target_class, seed)
    images = host["x"].copy()
    height, width = images.shape[1:3]
    if not 1 <= size <= min(height, width):
        raise InputError(f"size is {size}: the patch must fit into {height}x{width} pixels")
    if corner not in ("top_left", "top_right", "bottom_left", "bottom_right"):
        raise InputError(f"corner is {corner!r}: give top_left, top_right, bottom_left, ...")
    vertical, horizontal = corner.split("_")
    down = slice(0, size) if vertical == "top" else slice(height - size, height)
    across = slice(0, size) if horizontal == "left" else slice(width - size, width)
    images[rows, down, across] = _patch_value(value, images)
    return poisoned(host, rows, images, target_class)


def blend_trigger(
    examples: Mapping[str, Any],
    rate: float,
    target_class: int,
    pattern: ArrayLike,
    alpha: float,
    seed: int,
) -> Backdoor:
    """Blend a pattern into some images, `(1 - alpha) x + alpha pattern`, and relabel them.

    Exactly `round(rate * n)` of the n examples of other classes are poisoned.

    Args:
        examples: `{"x": [N, H, W] or [N, H, W, C], "y": int[N]}`.
        rate: fraction of the examples of other classes that is poisoned.
        target_class: the label that poisoned examples get, among the classes of the set.
        pattern: of the shape of one image, in the units of `"x"`.
        alpha: weight of the pattern, 0 (invisible) to 1 (nothing else is left).
        seed: which examples.

    Returns:
        The examples and the truth. Integer images are rounded.

    Raises:
        InputError: for a rate or alpha outside [0, 1], a target class out of range, inputs that
            are not images, or a pattern of another shape.

    Reference:
        Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
        2017 (arXiv 1712.05526), blended injection.

    Example:
        >>> clean = {"x": np.zeros((2, 2, 2), np.uint8), "y": np.array([0, 1])}
        >>> dirty = blend_trigger(clean, 1.0, 0, np.full((2, 2), 100), alpha=0.2, seed=0)
        >>> dirty.examples["x"][1, 0], dirty.examples["y"]
        (array([20, 20], dtype=uint8), array([0, 0], dtype=int32))
    """
    check_rate(alpha, "alpha")
    host, rows = draw_victims(examples, rate, target_class, seed)
    images = host["x"].copy()
    overlay = np.asarray(pattern, np.float64)
    if overlay.shape != images.shape[1:]:
        raise InputError(
            f"pattern has shape {overlay.shape}: give one of the shape of an image, "
            f"{images.shape[1:]}"
        )
    images[rows] = cast_back((1 - alpha) * images[rows] + alpha * overlay, images.dtype)
    return poisoned(host, rows, images, target_class)


def draw_victims(
    examples: Mapping[str, Any], rate: float, target_class: int, seed: int
) -> tuple[Examples, Int[np.ndarray, " n"]]:
    """Check images with labels, and draw `round(rate * n)` of the n of other classes.

    Raises:
        InputError: for a rate outside [0, 1], a target class out of range, or no images.
    """
    check_rate(rate)
    host, _ = check_labelled(examples)
    check_images(host["x"])
    labels = host["y"]
    if not 0 <= target_class <= labels.max():
        raise InputError(
            f"target_class is {target_class}: the classes of the examples are 0 to {labels.max()}"
        )
    victims = np.flatnonzero(labels != target_class)
    return host, draw_rows(np.random.default_rng(seed), victims, rate)


def _patch_value(value: ArrayLike | None, images: np.ndarray) -> np.ndarray:
    if value is None:
        return np.asarray(255 if images.dtype == np.uint8 else images.max(), images.dtype)
    stamp = np.asarray(value)
    channels = images.shape[3:]
    if stamp.ndim and stamp.shape != channels:
        raise InputError(
            f"value has shape {stamp.shape}: give one number, or one per channel {channels}"
        )
    if images.dtype.kind in "iu" and (cast_back(stamp, images.dtype) != stamp).any():
        raise InputError(f"value {value} is no {images.dtype} pixel")
    return stamp.astype(images.dtype)


def poisoned(host: Examples, rows: np.ndarray, images: np.ndarray, target_class: int) -> Backdoor:
    """Give the rows the target label, and record the truth."""
    labels = host["y"].copy()
    labels[rows] = target_class
    return Backdoor({**host, "x": images, "y": labels}, as_mask(rows, len(labels)), host["y"])
