"""Random changes of one image on the device: frozen data, called with a key and an image.

They follow torchvision's transforms of the same names (ranges, order of the draws, interpolation
and edges), but draw from jax's random keys.
"""

from jaxinf.membership.augmentations.geometry import (
    RandomAffine,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    affine,
    resized_crop,
)
from jaxinf.membership.augmentations.photometric import (
    ColorJitter,
    GaussianBlur,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    gaussian_blur,
)

__all__ = [
    "ColorJitter",
    "GaussianBlur",
    "RandomAffine",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "affine",
    "gaussian_blur",
    "resized_crop",
]
