"""Resizing of 8-bit images as Pillow does it, to the bit, on the device.

Pillow resamples in two passes, along columns and along rows, in integers: each output value is a
weighted sum of input values with weights in units of 2⁻²², rounded and clipped to 0..255 after
each pass. So the order of the passes shows in the bits, and it depends on Pillow's version.
"""

import functools
import importlib.metadata
import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, UInt8

Filter: TypeAlias = Literal["bicubic", "bilinear"]

_BITS = 22
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}


class Taps(NamedTuple):
    """Which inputs make up each output along one axis, and with what weights.

    Attributes:
        first: int32[out], the first input of each output.
        weights: int32[out, taps], in units of 2⁻²², zero beyond the last input that counts.
    """

    first: Int32[np.ndarray, " out"]
    weights: Int32[np.ndarray, "out taps"]


def taps(size: int, new_size: int, kind: Filter = "bicubic") -> Taps:
    """Taps that resize one axis from `size` to `new_size`; the filter widens when shrinking.

    Reference: Pillow, `src/libImaging/Resample.c`, `precompute_coeffs` and
    `normalize_coeffs_8bpc`.

    Example:
        >>> found = taps(4, 2, "bilinear")
        >>> found.first.tolist(), (found.weights[0] / 2**22).round(3).tolist()
        ([0, 1], [0.429, 0.429, 0.143, 0.0, 0.0])
    """
    scale = size / new_size
    widening = max(scale, 1.0)
    support = _SUPPORT[kind] * widening
    centre = (np.arange(new_size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int32), size)
    offset = np.arange(math.ceil(support) * 2 + 1)
    positions = first[:, None] + offset
    distance = (positions - centre[:, None] + 0.5) * (1.0 / widening)
    weights = np.where(positions < last[:, None], _kernel(np.abs(distance), kind), 0.0)
    # summed one by one, as Pillow does: another order could differ in the last bit
    total = np.cumsum(weights, axis=1)[:, -1:]
    units = weights / total * (1 << _BITS)
    rounded = np.trunc(units + np.where(units < 0, -0.5, 0.5))
    return Taps(first.astype(np.int32), rounded.astype(np.int32))


def resample(image: UInt8[jax.Array, "H W c"], found: Taps, axis: int) -> UInt8[jax.Array, "H W c"]:
    """Apply taps along one axis; any subset of them makes that subset of the outputs.

    Example:
        >>> image = jnp.array([[[0], [100], [200]]], jnp.uint8)
        >>> resample(image, taps(3, 6), axis=1)[0, :, 0].tolist()
        [0, 17, 71, 129, 183, 209]
    """
    count, length = found.weights.shape[1], image.shape[axis]
    first, weights = jnp.asarray(found.first), jnp.asarray(found.weights)
    shape = [1] * image.ndim
    shape[axis] = first.size

    def add(tap: jax.Array, total: jax.Array) -> jax.Array:
        # beyond the last input the weight is zero
        inputs = jnp.take(image, jnp.minimum(first + tap, length - 1), axis=axis, mode="clip")
        return total + inputs.astype(jnp.int32) * weights[:, tap].reshape(shape)

    out = [*image.shape]
    out[axis] = first.size
    half = jnp.full(out, 1 << (_BITS - 1), jnp.int32)
    total = jax.lax.fori_loop(0, count, add, half)
    return jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)


def pass_order(
    shape: tuple[int, int], new_shape: tuple[int, int], version: tuple[int, ...] | None = None
) -> tuple[int, int]:
    """Axes in the order in which Pillow resamples them: (1, 0) is columns first.

    Columns first, always, until Pillow 12.1. Pillow 12.2 and 12.3 begin with the rows of images
    over 100 times as tall as wide, Pillow 13 where over twice as many rows as columns go.

    Args:
        shape: (H, W).
        new_shape: after resizing.
        version: of Pillow; that of the installed one if not given.

    Reference: python-pillow/Pillow, pull requests 9524 and 9549.

    Example:
        >>> pass_order((90, 40), (20, 30), (13, 0)), pass_order((90, 40), (20, 30), (12, 1))
        ((0, 1), (1, 0))
    """
    version = installed_pillow() if version is None else version
    (height, width), (new_height, new_width) = shape, new_shape
    shrinks = new_height < height
    if version >= (13,):
        rows_first = shrinks and height - new_height > 2 * (width - new_width)
    else:
        rows_first = version >= (12, 2) and shrinks and height > 100 * width
    return (0, 1) if rows_first else (1, 0)


@functools.cache
def installed_pillow() -> tuple[int, int]:
    """Major and minor version of the installed Pillow; 13.0 where there is none."""
    try:
        major, minor, *_ = importlib.metadata.version("pillow").split(".")
    except importlib.metadata.PackageNotFoundError:
        return 13, 0
    return int(major), int(minor)


def resize(
    image: UInt8[jax.Array, "H W c"], height: int, width: int, kind: Filter = "bicubic"
) -> UInt8[jax.Array, "height width c"]:
    """Resize an image, bit for bit as the installed Pillow does. Jits (sizes static) and vmaps.

    Args:
        image: uint8[H, W, c].
        height: rows of the result.
        width: columns of the result.
        kind: the filter.

    Example:
        >>> resize(jnp.zeros((5, 7, 3), jnp.uint8), 10, 3).shape
        (10, 3, 3)
    """
    new_shape = (height, width)
    for axis in pass_order((image.shape[0], image.shape[1]), new_shape):
        if image.shape[axis] != new_shape[axis]:
            image = resample(image, taps(image.shape[axis], new_shape[axis], kind), axis)
    return image


def _kernel(x: np.ndarray, kind: Filter) -> np.ndarray:
    """The filter at distances x ≥ 0; the cubic is Keys' with a = −1/2."""
    if kind == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
