"""From a picture of any size to what the image tower takes: resize, centre crop, normalise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxinf.errors import InputError, require_extra
from jaxinf.models.clip.resample import Filter, Taps, pass_order, resample, taps
from jaxinf.typing import AnyArray

# the statistics of OpenAI's training images, which most later checkpoints kept
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# beyond this a thin picture, its shorter side enlarged, would fill the memory
_MOST_PIXELS = 1 << 28

Image: TypeAlias = Any
"""A `PIL.Image.Image`, or uint8[H, W, 3] or [H, W]."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Preprocessing of a checkpoint, on the host or on a device with the same pixels.

    Attributes:
        size: pixels per side of the result.
        resize_to: pixels of the shorter side after resizing, at least `size`.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
        filter: of the resizing.
        squash: resize both sides to `size` and do not crop.
        library: whose details to follow. "torchvision" (OpenAI, open_clip) rounds a centre
            crop's odd margin half to even and converts to RGB last; "transformers" rounds down
            and converts first.

    Example:
        >>> preprocess = Preprocess(size=4, resize_to=4)
        >>> preprocess(np.zeros((5, 9, 3), np.uint8)).shape
        (4, 4, 3)
    """

    size: int
    resize_to: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    filter: Filter = "bicubic"
    squash: bool = False
    library: Literal["torchvision", "transformers"] = "torchvision"

    def __call__(self, images: Image | Sequence[Image]) -> Float[np.ndarray, "*B S S 3"]:
        """One picture to float32[S, S, 3], a list of them to float32[B, S, S, 3]; on the host."""
        if isinstance(images, list | tuple):
            return self.normalise(np.stack([self.pixels(image) for image in images]))
        return self.normalise(self.pixels(images))

    def pixels(self, image: Image) -> UInt8[np.ndarray, "S S 3"]:
        """Resize and crop on the host, by Pillow.

        Args:
            image: a Pillow image of any mode, or uint8[H, W, 3] or [H, W].

        Returns:
            uint8[S, S, 3].

        Raises:
            InputError: for an array of another kind, or a picture too thin to resize.
            MissingExtraError: Pillow is not installed.
        """
        pil = require_extra("PIL.Image", "clip")
        if not isinstance(image, pil.Image):
            image = pil.fromarray(_checked(np.asarray(image)))
        if self.library == "transformers":
            image = image.convert("RGB")
        height, width = self._resized(image.height, image.width)
        resampling = {"bicubic": pil.Resampling.BICUBIC, "bilinear": pil.Resampling.BILINEAR}
        image = image.resize((width, height), resampling[self.filter])
        top, left = self._corner(height, width)
        image = image.crop((left, top, left + self.size, top + self.size))
        return np.array(image.convert("RGB"))

    def pixels_on_device(self, image: UInt8[AnyArray, "H W 3"]) -> UInt8[jax.Array, "S S 3"]:
        """`pixels` in JAX, with the same bits; jits (once per H and W) and vmaps.

        Args:
            image: uint8[H, W, 3].

        Raises:
            InputError: for another shape or dtype, or a picture too thin to resize.
        """
        image = jnp.asarray(_checked(image))
        if image.ndim != 3:
            raise InputError(f"the image has shape {image.shape}: pass uint8[H, W, 3]")
        shape = (image.shape[0], image.shape[1])
        sizes = self._resized(*shape)
        corner = self._corner(*sizes)
        for axis in pass_order(shape, sizes):
            first, last = corner[axis], corner[axis] + self.size
            if image.shape[axis] == sizes[axis]:
                image = jax.lax.slice_in_dim(image, first, last, axis=axis)
            else:
                # what the crop drops is not computed
                found = taps(image.shape[axis], sizes[axis], self.filter)
                kept = Taps(found.first[first:last], found.weights[first:last])
                image = resample(image, kept, axis)
        return image

    def normalise(self, pixels: AnyArray) -> Any:
        """Subtract the mean and divide by the standard deviation of each channel.

        Args:
            pixels: uint8[..., 3], or floating-point in 0..1; numpy or jax.

        Returns:
            float32[..., 3] of the same kind.
        """
        library = jnp if isinstance(pixels, jax.Array) else np
        values = pixels.astype(np.float32)
        if pixels.dtype == np.uint8:
            values = values / np.float32(255)
        # written out, so that ranks are equal
        channels = (1,) * (pixels.ndim - 1) + (3,)
        mean = library.asarray(self.mean, dtype=np.float32).reshape(channels)
        std = library.asarray(self.std, dtype=np.float32).reshape(channels)
        return (values - mean) / std

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing."""
        if self.squash:
            return self.size, self.size
        short, long = min(height, width), max(height, width)
        new_long = int(self.resize_to * long / short)
        if new_long * self.resize_to > _MOST_PIXELS:
            raise InputError(
                f"the image is {width} x {height}: too thin to bring its shorter side to "
                f"{self.resize_to} pixels"
            )
        return (self.resize_to, new_long) if height <= width else (new_long, self.resize_to)

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        """Top left corner of the centre crop."""
        margins = (height - self.size, width - self.size)
        if self.library == "transformers":
            return margins[0] // 2, margins[1] // 2
        return round(margins[0] / 2), round(margins[1] / 2)


def from_open_clip(config: Mapping[str, Any], image_size: int, name: str) -> Preprocess:
    """Preprocessing from the `preprocess_cfg` of an open_clip config.

    Args:
        config: the object; what it leaves out has open_clip's default.
        image_size: of the image tower.
        name: what to call it in messages.

    Raises:
        InputError: it asks for what is not built here, or for another size than the tower's.
    """
    sizes = config.get("size", image_size)
    size = sizes[-1] if isinstance(sizes, list | tuple) else sizes
    mode, kind = config.get("resize_mode", "shortest"), config.get("interpolation", "bicubic")
    if size != image_size:
        raise InputError(f"{name}: size is {sizes!r}, but the model takes {image_size}")
    if mode not in ("shortest", "squash") or kind not in ("bicubic", "bilinear"):
        raise InputError(
            f"{name}: resize_mode {mode!r} with interpolation {kind!r} is not supported"
        )
    return Preprocess(
        size=size,
        resize_to=size,
        mean=_three(config.get("mean") or CLIP_MEAN),
        std=_three(config.get("std") or CLIP_STD),
        filter=kind,
        squash=mode == "squash",
    )


def from_hugging_face(config: Mapping[str, Any], image_size: int, name: str) -> Preprocess:
    """Preprocessing from Hugging Face's preprocessor_config.json.

    Args:
        config: the object; what it leaves out has the default of CLIP's image processor.
        image_size: of the image tower.
        name: what to call it in messages.

    Raises:
        InputError: it asks for what is not built here, or for another size than the tower's.
    """
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if not config.get(step, True):
            raise InputError(f"{name}: {step} is off, which is not supported")
    filters: dict[Any, Filter] = {2: "bilinear", 3: "bicubic"}
    kind = config.get("resample", 3)
    if kind not in filters or not np.isclose(config.get("rescale_factor", 1 / 255), 1 / 255):
        raise InputError(f"{name}: only bilinear and bicubic resizing of 0..255 are supported")
    wanted = config.get("size", {"shortest_edge": image_size})
    crops = config.get("do_center_crop", True)
    crop = config.get("crop_size", image_size)
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if isinstance(wanted, int):
        wanted = {"shortest_edge": wanted}
    both = (wanted.get("height"), wanted.get("width"))
    squash = both == (image_size, image_size)
    size = image_size if squash and not crops else crop.get("height")
    if not crops and not squash:
        raise InputError(f"{name}: no centre crop after resizing to {wanted} is not supported")
    if size != image_size or (crops and crop.get("width") != size):
        raise InputError(f"{name}: crop_size is {crop}, but the model takes {image_size}")
    shorter = image_size if squash else wanted.get("shortest_edge", 0)
    if shorter < image_size:
        raise InputError(f"{name}: resizing to {wanted} leaves less than {image_size} pixels")
    return Preprocess(
        size=image_size,
        resize_to=shorter,
        mean=_three(config.get("image_mean") or CLIP_MEAN),
        std=_three(config.get("image_std") or CLIP_STD),
        filter=filters[kind],
        squash=squash,
        library="transformers",
    )


def _three(values: Any) -> tuple[float, ...]:
    # one number stands for all three channels
    return tuple(values) if isinstance(values, list | tuple) else (float(values),) * 3


def _checked(image: Any) -> Any:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(
            f"the image is {image.dtype}{list(image.shape)}: pass uint8[H, W, 3], or a PIL image"
        )
    if not image.size:
        raise InputError(f"the image has shape {image.shape}: it holds no pixels")
    return image
