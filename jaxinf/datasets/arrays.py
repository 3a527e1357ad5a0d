"""What readers and corruptions share: checked examples, drawn rows, casts that keep the range."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_examples, check_labels

Examples: TypeAlias = dict[str, np.ndarray]
"""`{"x": array[N, ...], "y": int32[N]}`, on the host, with a common leading axis."""


def normalise(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Float[np.ndarray, "N *shape"]:
    """Scale stored bytes to [0, 1], subtract the mean and divide by the standard deviation.

    Args:
        images: uint8[N, H, W, C], or any uint8 array whose last axis holds the channels.
        mean: a number or float[C], in units of [0, 1].
        std: a number or float[C], in units of [0, 1], positive.

    Returns:
        float32 of the same shape.

    Raises:
        InputError: for images that are not uint8 [N, ...], a standard deviation that is not
            positive, or a mean or standard deviation that does not fit the channels.

    Example:
        >>> normalise(np.array([[0, 255]], np.uint8), mean=0.5, std=0.5)
        array([[-1.,  1.]], dtype=float32)
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}: normalise takes uint8 (0 to 255) as stored")
    if images.ndim < 2:
        raise InputError(f"images have shape {images.shape}: a leading axis of examples is needed")
    moments = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    for name, value in moments.items():
        if value.ndim and value.shape != images.shape[-1:]:
            raise InputError(
                f"{name} has shape {value.shape}: give one number, or one per channel "
                f"(images have shape {images.shape})"
            )
    if not (moments["std"] > 0).all():
        raise InputError("std must be positive in every channel")
    # one float32 copy, changed in place; factors as large as an image keep numpy's inner loop long
    whole = lambda factor: np.broadcast_to(factor, images.shape[1:]).astype(np.float32)
    scaled = images.astype(np.float32)
    scaled *= whole(1 / (255 * moments["std"]))
    scaled -= whole(moments["mean"] / moments["std"])
    return scaled


def check_labelled(
    examples: Mapping[str, Any], name: str = "examples", num_classes: int | None = None
) -> tuple[Examples, int]:
    """Bring labelled examples to the host and check them; return them and how many.

    Labels come back as int32, other leaves with the dtype they had.

    Raises:
        InputError: for something else than a dict with `"x"` and `"y"`, unequal leading axes,
            or labels that are not integers in `0 .. num_classes - 1`.
    """
    if not isinstance(examples, Mapping) or not {"x", "y"} <= set(examples):
        raise InputError(f"{name} must be a dict with 'x' and 'y', one leading axis for both")
    count = check_examples(examples, name)
    host = {key: np.asarray(value) for key, value in examples.items()}
    labels = host["y"]
    if labels.ndim != 1:
        raise InputError(f"{name}['y'] has shape {labels.shape}: give one class label per example")
    # without a number of classes this still refuses negative and non-integer labels
    bound = int(labels.max()) + 1 if num_classes is None else num_classes
    check_labels(labels, bound, f"{name}['y']")
    return {**host, "y": labels.astype(np.int32)}, count


def check_images(images: np.ndarray, name: str = "examples['x']") -> None:
    """Refuse anything else than images, [N, H, W] or [N, H, W, C].

    Raises:
        InputError: naming the shape.
    """
    if images.ndim not in (3, 4):
        raise InputError(
            f"{name} has shape {images.shape}: images [N, H, W] or [N, H, W, C] are needed"
        )


def check_rate(rate: float, name: str = "rate") -> None:
    """Refuse a fraction outside [0, 1].

    Raises:
        InputError: naming the value.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"{name} is {rate}: give a fraction between 0 and 1")


def value_bounds(values: np.ndarray, given: tuple[float, float] | None) -> tuple[float, float]:
    """The least and the largest value that inputs may take, in their own units.

    Args:
        values: the inputs.
        given: the caller's `(lowest, highest)`; None takes 0 to 255 for uint8, and otherwise the
            smallest to the largest value there is.

    Raises:
        InputError: the given range is none.
    """
    if given is not None:
        low, high = given
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"value_range is {given}: give (lowest, highest)")
        return float(low), float(high)
    if values.dtype == np.uint8:
        return 0.0, 255.0
    return float(values.min()), float(values.max())


def draw_rows(
    rng: np.random.Generator, candidates: np.ndarray, rate: float
) -> Int[np.ndarray, " n"]:
    """Draw `round(rate * len(candidates))` of the candidate rows, ascending, without repeats."""
    count = round(rate * len(candidates))
    return np.sort(rng.choice(candidates, size=count, replace=False))


def as_mask(rows: np.ndarray, count: int) -> np.ndarray:
    """Mark rows in a bool[count]."""
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def cast_back(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Cast computed values to a stored dtype; integers are rounded and clipped to its range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.asarray(np.clip(np.rint(values), limits.min, limits.max))
    return values.astype(dtype)
