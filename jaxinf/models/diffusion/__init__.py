"""Diffusion models: a small class-conditional EDM, its training, sampling and checkpoints."""

from jaxinf.models.diffusion.checkpoint import load_edm, save_edm
from jaxinf.models.diffusion.edm import EDM, init_params, weighted_error
from jaxinf.models.diffusion.sampler import noise_schedule, sample
from jaxinf.models.diffusion.train import check_images, fit_edm
from jaxinf.models.diffusion.unet import UNet

__all__ = [
    "EDM",
    "UNet",
    "check_images",
    "fit_edm",
    "init_params",
    "load_edm",
    "noise_schedule",
    "sample",
    "save_edm",
    "weighted_error",
]
