"""Small changes that turn a copy of an image into a near-duplicate.

Each takes `(images, rng)` and returns images of the same shape and dtype: [N, H, W] or
[N, H, W, C], uint8 or floating point, one independent draw per image.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np

from jaxinf.datasets.arrays import cast_back
from jaxinf.errors import InputError, require_extra

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each image by one pixel in one of the 8 directions; edges are repeated.

    Example:
        >>> image = np.zeros((1, 3, 3), np.uint8)
        >>> image[0, 1, 1] = 9
        >>> moved = shift(image, np.random.default_rng(0))
        >>> int(moved[0, 1, 1]), int(moved.sum())
        (0, 9)
    """
    steps = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)])
    dy, dx = steps[rng.integers(len(steps), size=len(images))].T
    height, width = images.shape[1:3]
    rows = np.clip(np.arange(height) - dy[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - dx[:, None], 0, width - 1)
    return _gather(images, rows, columns)


def all_shifts(images: np.ndarray) -> Iterator[np.ndarray]:
    """All images as they are, then moved by one pixel in each of the 8 directions, edges repeated.

    Example:
        >>> moved = list(all_shifts(np.arange(4, dtype=np.uint8).reshape(1, 2, 2)))
        >>> len(moved), moved[0][0].tolist(), moved[1][0].tolist()
        (9, [[0, 1], [2, 3]], [[0, 0], [0, 0]])
    """
    height, width = images.shape[1:3]
    yield images
    for dy in (1, 0, -1):
        for dx in (1, 0, -1):
            if (dy, dx) != (0, 0):
                rows = np.clip(np.arange(height) - dy, 0, height - 1)
                columns = np.clip(np.arange(width) - dx, 0, width - 1)
                yield images[:, rows][:, :, columns]


def crop(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a random window of 7/8 of each side and stretch it back (nearest neighbour).

    Example:
        >>> crop(np.zeros((2, 8, 8, 3), np.uint8), np.random.default_rng(0)).shape
        (2, 8, 8, 3)
    """
    windows = []
    for side in images.shape[1:3]:
        window = max(1, side * 7 // 8)
        start = rng.integers(side - window + 1, size=len(images))
        windows.append(start[:, None] + np.arange(side) * window // side)
    return _gather(images, *windows)


def noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of 2 % of the value range, kept inside that range.

    The range is 0 to 255 for uint8, and from the smallest to the largest value of the images
    handed over for any other dtype.

    Example:
        >>> grey = np.full((1, 4, 4), 128, np.uint8)
        >>> bool(1 < noise(grey, np.random.default_rng(0)).std() < 10)
        True
    """
    low, high = _value_range(images)
    noisy = images + rng.normal(0, 0.02 * (high - low), images.shape)
    return cast_back(np.clip(noisy, low, high), images.dtype)


def brightness(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make each image 10 to 20 % brighter or darker, kept inside the value range.

    Brightness counts from the lower end of the range, which is as for `noise`.

    Example:
        >>> grey = np.full((1, 2, 2), 100, np.uint8)
        >>> 10 <= abs(int(brightness(grey, np.random.default_rng(0))[0, 0, 0]) - 100) <= 20
        True
    """
    low, high = _value_range(images)
    factor = 1 + rng.choice([-1, 1], len(images)) * rng.uniform(0.1, 0.2, len(images))
    factor = factor.reshape(-1, *[1] * (images.ndim - 1))
    changed = low + (images.astype(np.float64) - low) * factor
    return cast_back(np.clip(changed, low, high), images.dtype)


def jpeg(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress each image as JPEG of quality 50 and decode it again.

    Floating-point images are quantised to 256 steps of their value range on the way.

    Raises:
        InputError: for images with another number of channels than 1 or 3.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> grey = np.full((1, 8, 8, 1), 100, np.uint8)
        >>> jpeg(grey, np.random.default_rng(0)).shape
        (1, 8, 8, 1)
    """
    image = require_extra("PIL.Image", "cli")
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise InputError(f"JPEG holds 1 or 3 channels, and the images have {images.shape[3]}")
    low, high = _value_range(images)
    step = (high - low) / 255 or 1.0
    stored = cast_back((images - low) / step, np.dtype(np.uint8))
    decoded = []
    for pixels in stored:
        buffer = io.BytesIO()
        grey = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        image.fromarray(grey).save(buffer, "JPEG", quality=50)
        decoded.append(np.asarray(image.open(buffer)).reshape(pixels.shape))
    return cast_back(low + np.stack(decoded) * step, images.dtype)


NAMED: dict[str, Transform] = {
    "shift": shift,
    "noise": noise,
    "brightness": brightness,
    "crop": crop,
    "jpeg": jpeg,
}


def _gather(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _value_range(images: np.ndarray) -> tuple[float, float]:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    return float(images.min()), float(images.max())
