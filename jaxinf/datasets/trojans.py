"""Trojan triggers: a small square, and a watermark that shines through the whole image.

Both are drawn from `pattern_seed` alone (and the shape and range of the images), so that the same
trigger can be put on a training and on a test set.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxinf.datasets.arrays import cast_back, check_rate, value_bounds
from jaxinf.datasets.backdoors import Backdoor, draw_victims, poisoned
from jaxinf.errors import InputError

# of the watermark's area: a third is drawn, in as much light as dark
_DRAWN = 1 / 3
_WAVES = 4


def trojan_square(
    examples: Mapping[str, Any],
    rate: float,
    target_class: int,
    *,
    size: int | None = None,
    value_range: tuple[float, float] | None = None,
    pattern_seed: int = 0,
    seed: int,
) -> Backdoor:
    """Put a square of random light and dark pixels into the lower right corner, and relabel.

    Exactly `round(rate * n)` of the n examples of other classes are poisoned. The original attack
    finds the pixels of its square by exciting chosen neurons of one network; ours are drawn, so
    that no network is needed.

    Args:
        examples: `{"x": [N, H, W] or [N, H, W, C], "y": int[N]}`.
        rate: fraction of the examples of other classes that is poisoned.
        target_class: the label that poisoned examples get, among the classes of the set.
        size: side of the square in pixels; by default a quarter of the shorter side.
        value_range: dark and light, in the units of `"x"`; by default 0 and 255 for uint8, and
            otherwise the smallest and the largest value of `"x"` (give it where another set shall
            get the very same trigger).
        pattern_seed: the trigger.
        seed: which examples.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], a target class out of range, inputs that are not
            images, a square that does not fit them, or a range that is none.

    Reference:
        After Liu et al., "Trojaning Attack on Neural Networks", NDSS 2018: the square.

    Example:
        >>> clean = {"x": np.full((4, 8, 8), 9, np.uint8), "y": np.array([0, 1, 1, 1])}
        >>> dirty = trojan_square(clean, rate=1.0, target_class=0, seed=0)
        >>> dirty.is_poisoned, np.unique(dirty.examples["x"][1, 6:, 6:]).tolist()
        (array([False,  True,  True,  True]), [0, 255])
    """
    host, rows = draw_victims(examples, rate, target_class, seed)
    images = host["x"].copy()
    sides = images.shape[1:3]
    side = max(1, min(sides) // 4) if size is None else size
    if not 1 <= side <= min(sides):
        raise InputError(f"size is {size}: the square must fit into {sides[0]}x{sides[1]} pixels")
    low, high = value_bounds(images, value_range)
    rng = np.random.default_rng(pattern_seed)
    light = rng.integers(0, 2, (side, side, *images.shape[3:]))
    images[rows, -side:, -side:] = cast_back(np.where(light, high, low), images.dtype)
    return poisoned(host, rows, images, target_class)


def trojan_watermark(
    examples: Mapping[str, Any],
    rate: float,
    target_class: int,
    *,
    alpha: float = 0.3,
    value_range: tuple[float, float] | None = None,
    pattern_seed: int = 0,
    seed: int,
) -> Backdoor:
    """Let bands of light and dark shine through the image like a watermark, and relabel.

    Where the mark is drawn a pixel becomes `(1 - alpha) x + alpha mark`; two thirds of the image
    stay as they are. Exactly `round(rate * n)` of the n examples of other classes are poisoned.

    Args:
        examples: `{"x": [N, H, W] or [N, H, W, C], "y": int[N]}`.
        rate: fraction of the examples of other classes that is poisoned.
        target_class: the label that poisoned examples get, among the classes of the set.
        alpha: opacity of the mark, 0 (invisible) to 1.
        value_range: dark and light, as for `trojan_square`.
        pattern_seed: the trigger.
        seed: which examples.

    Returns:
        The examples and the truth. Integer images are rounded.

    Raises:
        InputError: for a rate or alpha outside [0, 1], a target class out of range, inputs that
            are not images, or a range that is none.

    Reference:
        After Liu et al., "Trojaning Attack on Neural Networks", NDSS 2018: the watermark. Theirs
        is a logo or a text; ours is drawn.

    Example:
        >>> clean = {"x": np.full((2, 8, 8), 100, np.uint8), "y": np.array([0, 1])}
        >>> dirty = trojan_watermark(clean, rate=1.0, target_class=0, alpha=0.5, seed=0)
        >>> np.unique(dirty.examples["x"][1]).tolist()
        [50, 100, 178]
    """
    check_rate(alpha, "alpha")
    host, rows = draw_victims(examples, rate, target_class, seed)
    images = host["x"].copy()
    low, high = value_bounds(images, value_range)
    waves = _waves(images.shape[1:3], pattern_seed)
    dark, light = np.quantile(waves, [_DRAWN / 2, 1 - _DRAWN / 2])
    channels = (1,) * (images.ndim - 3)
    mark = np.where(waves >= light, high, low).reshape(*waves.shape, *channels)
    opacity = alpha * ((waves <= dark) | (waves >= light)).reshape(mark.shape)
    images[rows] = cast_back((1 - opacity) * images[rows] + opacity * mark, images.dtype)
    return poisoned(host, rows, images, target_class)


def _waves(sides: tuple[int, ...], seed: int) -> Float[np.ndarray, "H W"]:
    """A sum of a few slow plane waves: its highest and lowest parts are bands."""
    rng = np.random.default_rng(seed)
    down, across = (np.arange(side)[:, None] / side for side in sides)
    turns = rng.uniform(1, 3, _WAVES) * np.exp(1j * rng.uniform(0, np.pi, _WAVES))
    phases = (down * turns.real)[:, None] + (across * turns.imag)[None] + rng.random(_WAVES)
    return np.cos(2 * np.pi * phases).sum(axis=-1)
