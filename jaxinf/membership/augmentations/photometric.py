"""Random changes of colour and sharpness of one image, with torchvision's semantics.

Each is frozen data and a pure function of `(key, image)`, image float[H, W, 3] in [0, 1]; all jit
and vmap.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.membership.augmentations.geometry import Image


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue, each by a random amount, in random order.

    Attributes:
        brightness: factor uniform in [max(0, 1 − b), 1 + b]; 0 leaves it alone, here and below.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: shift uniform in [−hue, hue] turns of the colour circle, at most 0.5.

    Example:
        >>> jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
        >>> jitter(jax.random.key(0), jnp.full((2, 2, 3), 0.5)).shape
        (2, 2, 3)
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation", "hue"):
            value, most = getattr(self, name), 0.5 if name == "hue" else float("inf")
            if not 0 <= value <= most:
                raise InputError(f"{name} is {value}: not negative, and at most {most}")

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Change one image float[H, W, 3] in [0, 1] at random."""
        order_key, *keys = jax.random.split(key, 5)
        changes = []
        for change, reach, draw in zip(
            (adjust_brightness, adjust_contrast, adjust_saturation),
            (self.brightness, self.contrast, self.saturation),
            keys,
            strict=False,
        ):
            low, high = max(0.0, 1 - reach), 1 + reach
            if reach:
                changes.append((change, jax.random.uniform(draw, (), jnp.float32, low, high)))
        if self.hue:
            shift = jax.random.uniform(keys[3], (), jnp.float32, -self.hue, self.hue)
            changes.append((adjust_hue, shift))
        if not changes:
            return image
        branches = [lambda x, change=change, by=by: change(x, by) for change, by in changes]
        order = jax.random.permutation(order_key, len(changes))
        for place in range(len(changes)):
            image = jax.lax.switch(order[place], branches, image)
        return image


@dataclass(frozen=True)
class GaussianBlur:
    """Blur by a Gaussian whose σ in pixels is uniform in `sigma`.

    Attributes:
        kernel_size: width of the kernel, odd; the image is reflected at its edges, so it must be
            at least (kernel_size + 1) / 2 wide and high.
        sigma: smallest and largest σ.

    Example:
        >>> GaussianBlur(3)(jax.random.key(0), jnp.ones((4, 4, 3))).shape
        (4, 4, 3)
    """

    kernel_size: int = 5
    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self):
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {self.kernel_size}: an odd number, at least 1")
        if not 0 < self.sigma[0] <= self.sigma[1] < float("inf"):
            raise InputError(f"sigma is {self.sigma}: give smallest and largest, both positive")

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Blur one image float[H, W, C] at random."""
        sigma = jax.random.uniform(key, (), jnp.float32, *self.sigma)
        return gaussian_blur(image, sigma, kernel_size=self.kernel_size)


def adjust_brightness(image: Image, factor: jax.Array | float) -> Image:
    """Multiply by the factor; 0 is black.

    Example:
        >>> adjust_brightness(jnp.full((1, 1, 3), 0.5), 4.0).ravel().tolist()
        [1.0, 1.0, 1.0]
    """
    return jnp.clip(image * factor, 0, 1)


def adjust_contrast(image: Image, factor: jax.Array | float) -> Image:
    """Stretch from the mean grey of the image; 0 is all of that grey.

    Example:
        >>> adjust_contrast(jnp.full((1, 1, 3), 0.5), 0.5).ravel().round(3).tolist()
        [0.5, 0.5, 0.5]
    """
    return _blend(image, jnp.mean(_grey(image)), factor)


def adjust_saturation(image: Image, factor: jax.Array | float) -> Image:
    """Stretch from the grey of each pixel; 0 is grey.

    Example:
        >>> adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0).tolist()
        [[[0.29..., 0.29..., 0.29...]]]
    """
    return _blend(image, _grey(image), factor)


def adjust_hue(image: Image, shift: jax.Array | float) -> Image:
    """Turn the hue (of HSV) by `shift` turns of the colour circle.

    Example:
        >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3).ravel().round(3).tolist()
        [0.0, 1.0, 0.0]
    """
    high, low = jnp.max(image, axis=-1), jnp.min(image, axis=-1)
    spread = high - low
    red, green, blue = (image[..., i] for i in range(3))
    safe = jnp.where(spread > 0, spread, 1)
    # by position: a channel compared with the maximum may have been rounded otherwise in the
    # compiled program, and then equal none
    largest = jnp.argmax(image, axis=-1)
    hue = jax.lax.select_n(
        largest.astype(jnp.int32),
        (green - blue) / safe,
        2 + (blue - red) / safe,
        4 + (red - green) / safe,
    )
    # each channel is a trapezoid around the colour circle, a third of a turn apart
    place = hue[..., None] + 6 * shift + jnp.array([5.0, 3.0, 1.0])[None, None, :]
    place = jnp.mod(place, 6.0)
    return high[..., None] - spread[..., None] * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


def gaussian_blur(image: Image, sigma: jax.Array | float, *, kernel_size: int) -> Image:
    """Convolve with a truncated Gaussian whose weights sum to 1, reflecting at the edges.

    Args:
        image: float[H, W, C].
        sigma: of the Gaussian, in pixels.
        kernel_size: width of the kernel, odd.

    Returns:
        float[H, W, C].

    Example:
        >>> gaussian_blur(jnp.ones((3, 3, 1)), 1.0, kernel_size=3)[1, 1].round(6).tolist()
        [1.0]
    """
    reach = kernel_size // 2
    weights = jnp.exp(-0.5 * jnp.square(jnp.arange(-reach, reach + 1) / sigma))
    weights = weights / jnp.sum(weights)
    for axis in (0, 1):
        size = image.shape[axis]
        if size <= reach:
            raise InputError(f"an image of {image.shape[:2]} is too small for kernel {kernel_size}")
        pad = [(reach, reach) if at == axis else (0, 0) for at in range(image.ndim)]
        padded = jnp.pad(image, pad, mode="reflect")
        # shifted slices fuse into one pass; a convolution vmapped over kernels would not
        image = sum(
            (
                weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
                for i in range(kernel_size)
            ),
            start=jnp.zeros_like(image),
        )
    return image


def _grey(image: Image) -> Float[jax.Array, "H W 1"]:
    weights = jnp.array([0.2989, 0.587, 0.114], image.dtype)
    return jnp.sum(image * weights[None, None, :], axis=-1, keepdims=True)


def _blend(image: Image, other: jax.Array, factor: jax.Array | float) -> Image:
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)
