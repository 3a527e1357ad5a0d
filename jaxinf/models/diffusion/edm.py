"""EDM: the denoiser of Karras et al., its training loss, and the noise levels it is trained at."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.models.diffusion.unet import UNet

P_MEAN, P_STD = -1.2, 1.2
"""Of the normal distribution of ln σ in training."""


class EDM(nn.Module):
    """Denoiser `D(x; σ, class)`: a U-Net whose inputs and targets are kept at unit scale.

    Images are float[B, H, W, c], scaled to [−1, 1].

    Attributes:
        image_shape: (H, W, c).
        num_classes: classes, 0 to num_classes − 1.
        widths: the U-Net's channels at each resolution.
        sigma_data: standard deviation of the data.

    Example:
        >>> model = EDM((8, 8, 1), num_classes=3, widths=(8, 16))
        >>> params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        >>> given = jnp.ones((2, 8, 8, 1)), jnp.array([0.1, 1.0]), jnp.array([0, 2])
        >>> jax.eval_shape(model.apply, {"params": params}, *given).shape
        (2, 8, 8, 1)

    Reference: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models,
    NeurIPS 2022, section 5 and table 1.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    widths: tuple[int, ...] = (32, 64, 64)
    sigma_data: float = 0.5

    def setup(self):
        """Define the network, after a check that the images can be halved so often."""
        _check(self)
        self.unet = UNet(self.widths, self.num_classes)

    def __call__(self, x: jax.Array, sigma: jax.Array, labels: jax.Array) -> jax.Array:
        """Estimate of the clean images from `x`, which holds noise of scale `sigma` [B]."""
        s = scalings(sigma, self.sigma_data)
        wide = lambda a: a[:, None, None, None]
        output = self.unet(wide(s.into) * x, s.noise, labels)
        return wide(s.skip) * x + wide(s.out) * output

    def features(self, x: jax.Array, sigma: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean of the innermost feature map, float[B, widths[-1]]."""
        s = scalings(sigma, self.sigma_data)
        return self.unet(s.into[:, None, None, None] * x, s.noise, labels, features=True)


class Scalings(NamedTuple):
    """c_skip, c_out, c_in and c_noise, each float[B]."""

    skip: jax.Array
    out: jax.Array
    into: jax.Array
    noise: jax.Array


def scalings(sigma: jax.Array, sigma_data: float) -> Scalings:
    """The preconditioning of the network at noise levels σ.

    Example:
        >>> s = scalings(jnp.array([0.5]), 0.5)
        >>> round(float(s.skip[0]), 3), round(float(s.into[0]), 3)
        (0.5, 1.414)
    """
    total = sigma**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / jnp.sqrt(total),
        into=1 / jnp.sqrt(total),
        noise=jnp.log(sigma) / 4,
    )


def loss_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    """λ(σ) = 1 / c_out², which gives every noise level the same weight at first.

    Example:
        >>> float(loss_weight(jnp.array(0.5), 0.5))
        8.0
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def init_params(model: EDM, key: jax.Array) -> dict:
    """Initial parameters of a model.

    Raises:
        InputError: widths or image sizes that do not fit one another.
    """
    x = jnp.zeros((1, *model.image_shape))
    init = lambda key: model.init(key, x, jnp.ones(1), jnp.zeros(1, jnp.int32))
    return jax.jit(init)(key)["params"]


def weighted_error(
    model: EDM, params: dict, x: jax.Array, noise: jax.Array, sigma: jax.Array, labels: jax.Array
) -> Float[jax.Array, " B"]:
    """λ(σ) ‖D(x + σ·noise; σ, class) − x‖² per pixel, for each row.

    Returns:
        float[B]; NaN where the class is none of the model's.
    """
    noisy = x + sigma[:, None, None, None] * noise
    denoised = jnp.asarray(model.apply({"params": params}, noisy, sigma, labels))
    error = jnp.mean((denoised - x) ** 2, axis=(1, 2, 3))
    # indexing under jit clamps: a class out of range would be taken for another
    known = (labels >= 0) & (labels < model.num_classes)
    return loss_weight(sigma, model.sigma_data) * error * jnp.where(known, 1.0, jnp.nan)


def _check(model: EDM) -> None:
    halvings = 2 ** (len(model.widths) - 1)
    height, width, _ = model.image_shape
    if not model.widths or any(w < 8 or w % 8 for w in model.widths):
        raise InputError(f"widths are {model.widths}: multiples of 8 are needed")
    if height % halvings or width % halvings:
        raise InputError(
            f"images of {height}x{width} cannot be halved {len(model.widths) - 1} times: pad them, "
            "or give fewer widths"
        )
    if model.num_classes < 1:
        raise InputError(f"num_classes is {model.num_classes}: at least 1")
