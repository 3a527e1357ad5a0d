"""Random crops, rotations, affine maps and flips of one image, with torchvision's semantics.

Each is frozen data and a pure function of `(key, image)`, image float[H, W, C]; all jit and vmap.
Pixel (0, 0) is the top left one; maps leave the size as it is.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Float

from jaxinf.errors import InputError

Image: TypeAlias = Float[jax.Array, "H W C"]
Interpolation: TypeAlias = Literal["nearest", "bilinear"]

_CROP_TRIES = 10


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a part of random area and aspect, and resize it to the image's own size.

    Ten tries draw an area share from `scale` and an aspect from `ratio`, uniform in its
    logarithm; the first crop that fits is taken at a random whole-pixel place. When none fits:
    the largest central crop within `ratio`. Bilinear.

    Attributes:
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height of the crop.

    Example:
        >>> crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
        >>> crop(jax.random.key(0), jnp.eye(2)[..., None])[..., 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        _check_range(self.scale, "scale", 0, 1)
        _check_range(self.ratio, "ratio", 0, math.inf)

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Crop one image float[H, W, C] at random."""
        top, left, height, width = self.box(key, *image.shape[:2])
        return resized_crop(image, top, left, height, width)

    def box(self, key: jax.Array, rows: int, columns: int) -> tuple[jax.Array, ...]:
        """Draw (top, left, height, width) of a crop of an image of that size, whole pixels."""
        area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
        low, high = self.scale
        area = rows * columns * jax.random.uniform(area_key, (_CROP_TRIES,), jnp.float32, low, high)
        low, high = (math.log(end) for end in self.ratio)
        aspect = jnp.exp(jax.random.uniform(aspect_key, (_CROP_TRIES,), jnp.float32, low, high))
        width, height = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        fits = (width > 0) & (width <= columns) & (height > 0) & (height <= rows)
        first = jnp.argmax(fits)
        # the fallback is known before anything is drawn
        aspect_of_image = columns / rows
        widest = min(columns, round(rows * self.ratio[1]))
        tallest = min(rows, round(columns / self.ratio[0]))
        fallback_width = columns if aspect_of_image < self.ratio[0] else widest
        fallback_height = tallest if aspect_of_image < self.ratio[0] else rows
        found = fits.any()
        width = jnp.where(found, width[first], fallback_width)
        height = jnp.where(found, height[first], fallback_height)
        top = jnp.floor(jax.random.uniform(top_key, dtype=jnp.float32) * (rows - height + 1))
        left = jnp.floor(jax.random.uniform(left_key, dtype=jnp.float32) * (columns - width + 1))
        top = jnp.where(found, top, (rows - fallback_height) // 2)
        left = jnp.where(found, left, (columns - fallback_width) // 2)
        return top, left, height, width


@dataclass(frozen=True)
class RandomRotation:
    """Rotate about the centre by an angle uniform in [−degrees, degrees], counter-clockwise.

    Attributes:
        degrees: largest angle.
        interpolation: "nearest", torchvision's default, or "bilinear"; outside is 0 (black).

    Example:
        >>> RandomRotation(30.0)(jax.random.key(0), jnp.ones((5, 5, 3))).shape
        (5, 5, 3)
    """

    degrees: float
    interpolation: Interpolation = "nearest"

    def __post_init__(self):
        _check_range((0, self.degrees), "degrees", -1, math.inf)
        _check_interpolation(self.interpolation)

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Rotate one image float[H, W, C] at random."""
        angle = jax.random.uniform(key, (), jnp.float32, -self.degrees, self.degrees)
        return affine(image, angle=-angle, interpolation=self.interpolation)


@dataclass(frozen=True)
class RandomAffine:
    """Shear, scale, rotate about the centre, then shift: each drawn uniformly.

    Attributes:
        degrees: angle in [−degrees, degrees].
        translate: largest shift to the right and downwards, as shares of width and height;
            shifts are whole pixels.
        scale: smallest and largest factor.
        shear: horizontal shear angle in [−shear, shear] degrees.
        interpolation: "nearest", torchvision's default, or "bilinear"; outside is 0 (black).

    Example:
        >>> RandomAffine(10.0, translate=(0.1, 0.1))(jax.random.key(0), jnp.ones((5, 5, 3))).shape
        (5, 5, 3)
    """

    degrees: float
    translate: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    interpolation: Interpolation = "nearest"

    def __post_init__(self):
        _check_range((0, self.degrees), "degrees", -1, math.inf)
        for share in self.translate:
            _check_range((0, share), "translate", -1, 1)
        _check_range(self.scale, "scale", 0, math.inf)
        _check_range((0, self.shear), "shear", -1, 90)
        _check_interpolation(self.interpolation)

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Map one image float[H, W, C] at random."""
        keys = jax.random.split(key, 4)
        rows, columns = image.shape[:2]
        reach = jnp.array([self.translate[0] * columns, self.translate[1] * rows])
        return affine(
            image,
            angle=jax.random.uniform(keys[0], (), jnp.float32, -self.degrees, self.degrees),
            translate=jnp.round(jax.random.uniform(keys[1], (2,), jnp.float32, -reach, reach)),
            scale=jax.random.uniform(keys[2], (), jnp.float32, *self.scale),
            shear=jax.random.uniform(keys[3], (), jnp.float32, -self.shear, self.shear),
            interpolation=self.interpolation,
        )


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left to right with probability `probability`.

    Example:
        >>> flip = RandomHorizontalFlip(probability=1.0)
        >>> flip(jax.random.key(0), jnp.array([[[1.0], [2.0]]]))[0, :, 0].tolist()
        [2.0, 1.0]
    """

    probability: float = 0.5

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise InputError(f"probability is {self.probability}: give 0 to 1")

    def __call__(self, key: jax.Array, image: Image) -> Image:
        """Mirror one image float[H, W, C] at random."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


def resized_crop(
    image: Image,
    top: jax.Array | float,
    left: jax.Array | float,
    height: jax.Array | float,
    width: jax.Array | float,
) -> Image:
    """Resize the crop `image[top : top + height, left : left + width]` to the image's own size.

    Bilinear; pixels outside the crop have no part in it. The box may be traced, and lies within
    the image.

    Example:
        >>> resized_crop(jnp.arange(4.0).reshape(2, 2, 1), 0, 0, 1, 1)[..., 0].tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    rows, columns, channels = image.shape
    y, x = jnp.arange(rows)[:, None], jnp.arange(columns)[None, :]
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    mask = inside[..., None].astype(image.dtype)
    scale = jnp.stack([jnp.asarray(rows / height), jnp.asarray(columns / width)])
    # the kernel reaches over the crop's edge: weights there are taken out by the mask, which is
    # resized along and divided by
    resized = jax.image.scale_and_translate(
        jnp.concatenate([image * mask, mask], axis=-1),
        (rows, columns, channels + 1),
        (0, 1),
        scale.astype(image.dtype),
        (-scale * jnp.stack([jnp.asarray(top), jnp.asarray(left)])).astype(image.dtype),
        method="linear",
        antialias=False,  # a crop is never larger than the image, so nothing shrinks
    )
    return resized[..., :-1] / resized[..., -1:]


def affine(
    image: Image,
    *,
    angle: jax.Array | float = 0.0,
    translate: jax.Array | tuple[float, float] = (0.0, 0.0),
    scale: jax.Array | float = 1.0,
    shear: jax.Array | float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> Image:
    """Shear horizontally, scale and rotate about the image's centre, then shift.

    Args:
        image: float[H, W, C].
        angle: degrees, clockwise.
        translate: pixels to the right and downwards.
        scale: factor.
        shear: degrees.
        interpolation: "nearest" or "bilinear"; what comes from outside the image is 0.

    Returns:
        float[H, W, C].

    Example:
        >>> affine(jnp.eye(2)[..., None], angle=90.0)[..., 0].round(3).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    rows, columns = image.shape[:2]
    turn, slant = jnp.deg2rad(angle), jnp.deg2rad(shear)
    # where a point (x, y) goes: rotation · shear · scale. Its inverse says where one comes from
    rotation = jnp.array([[jnp.cos(turn), -jnp.sin(turn)], [jnp.sin(turn), jnp.cos(turn)]])
    forward = scale * jnp.matmul(
        rotation, jnp.array([[1.0, -jnp.tan(slant)], [0.0, 1.0]]), precision="highest"
    )
    (a, b), (c, d) = forward
    backward = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    centre = jnp.array([(columns - 1) / 2, (rows - 1) / 2])
    x, y = jnp.meshgrid(jnp.arange(columns) * 1.0, jnp.arange(rows) * 1.0)
    to = jnp.stack([x, y]).reshape(2, -1) - (centre + jnp.asarray(translate))[:, None]
    at = jnp.matmul(backward, to, precision="highest") + centre[:, None]
    source = at[::-1].reshape(2, rows, columns)
    order = 0 if interpolation == "nearest" else 1
    sample = lambda channel: map_coordinates(channel, list(source), order=order, mode="constant")
    return jax.vmap(sample, in_axes=2, out_axes=2)(image)


def _check_range(ends: tuple[float, float], name: str, above: float, up_to: float) -> None:
    low, high = ends
    if not above < low <= high <= up_to or not math.isfinite(high):
        raise InputError(f"{name} is {ends}: give smallest and largest, in order and in range")


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in ("nearest", "bilinear"):
        raise InputError(f'interpolation is {interpolation!r}: "nearest" or "bilinear"')
