"""Influence in diffusion models: which training images are behind a generated image?"""

from jaxinf.applications.diffusion.denoising import (
    NoiseDraws,
    WeightedError,
    attribute_generated,
    check_generated,
    denoising_loss,
    draw_noise,
)
from jaxinf.applications.diffusion.tuned import contrast_with, loss_fall, mirrored_tuning

__all__ = [
    "NoiseDraws",
    "WeightedError",
    "attribute_generated",
    "check_generated",
    "contrast_with",
    "denoising_loss",
    "draw_noise",
    "loss_fall",
    "mirrored_tuning",
]
