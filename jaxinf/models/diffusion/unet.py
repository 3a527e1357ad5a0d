"""A small class-conditional U-Net of residual blocks with group norms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_GROUPS = 8


class _Block(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        h = nn.silu(nn.GroupNorm(_GROUPS)(x))
        h = nn.Conv(self.channels, (3, 3), padding=1)(h)
        h = h + nn.Dense(self.channels)(condition)[:, None, None, :]
        h = nn.silu(nn.GroupNorm(_GROUPS)(h))
        # zero at first: every block starts as the identity
        h = nn.Conv(self.channels, (3, 3), padding=1, kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1))(x)
        return (x + h) / jnp.sqrt(2.0)


class UNet(nn.Module):
    """From an image, a number for its noise level and a class to an image of the same shape.

    Attributes:
        widths: channels at each resolution, multiples of 8; every further one is half the size,
            so height and width must be multiples of 2 ** (len(widths) - 1).
        num_classes: how many classes it is conditioned on.

    Example:
        >>> model, x = UNet((8, 8), num_classes=2), jnp.ones((3, 4, 4, 1))
        >>> given = x, jnp.ones(3), jnp.zeros(3, int)
        >>> jax.eval_shape(model.init_with_output, jax.random.key(0), *given)[0].shape
        (3, 4, 4, 1)

    Reference: Ronneberger et al., U-Net, MICCAI 2015; Ho et al., Denoising Diffusion Probabilistic
    Models, NeurIPS 2020.
    """

    widths: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(
        self, x: jax.Array, noise_level: jax.Array, labels: jax.Array, features: bool = False
    ) -> Any:
        """The output float[B, H, W, c]; or with `features` the innermost map's mean float[B, d]."""
        channels = x.shape[-1]
        condition = self._condition(noise_level, labels)
        h = nn.Conv(self.widths[0], (3, 3), padding=1)(x)
        skips = []
        for depth, width in enumerate(self.widths):
            if depth:
                h = nn.avg_pool(h, (2, 2), strides=(2, 2))
            h = _Block(width)(h, condition)
            skips.append(h)
        h = _Block(self.widths[-1])(h, condition)
        if features:
            return h.mean(axis=(1, 2))
        for depth in reversed(range(len(self.widths))):
            h = _Block(self.widths[depth])(jnp.concatenate([h, skips[depth]], -1), condition)
            if depth:
                h = h.repeat(2, axis=1).repeat(2, axis=2)
        h = nn.silu(nn.GroupNorm(_GROUPS)(h))
        return nn.Conv(channels, (3, 3), padding=1, kernel_init=nn.initializers.zeros)(h)

    def _condition(self, noise_level: jax.Array, labels: jax.Array) -> jax.Array:
        half = 16
        frequencies = jnp.pi * 2.0 ** jnp.linspace(-2.0, 4.0, half)
        angles = noise_level[:, None] * frequencies[None]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
        width = 4 * self.widths[0]
        embedded = nn.Dense(width)(waves) + nn.Embed(self.num_classes, width)(labels)
        return nn.silu(nn.Dense(width)(nn.silu(embedded)))
