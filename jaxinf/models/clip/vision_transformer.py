"""CLIP's vision transformer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.models.clip.blocks import AttentionKernel, Transformer, layer_norm, project
from jaxinf.models.clip.config import VisionTransformerConfig


class VisionTransformer(nn.Module):
    """Images float[B, S, S, 3] -> features float32[B, D]: those of the class token, projected.

    Attributes:
        config: the tower.
        embed_dim: D.
        dtype: of the computation; parameters stay float32.
        kernel: of the attention.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021, section 2.4.
    """

    config: VisionTransformerConfig
    embed_dim: int
    dtype: Any = jnp.float32
    kernel: AttentionKernel = None

    @nn.compact
    def __call__(
        self, images: Float[jax.Array, "B S S 3"], train: bool = False
    ) -> Float[jax.Array, "B D"]:
        """Features, not normalised; `train` changes nothing."""
        patch, stack = self.config.patch_size, self.config.transformer
        width, tokens = stack.width, (self.config.image_size // patch) ** 2 + 1
        scaled = nn.initializers.normal(width**-0.5)
        x = nn.Conv(
            width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            use_bias=False,
            dtype=self.dtype,
            name="conv1",
        )(images)
        x = x.reshape(images.shape[0], tokens - 1, width)
        first = self.param("class_embedding", scaled, (width,)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, width)), x], axis=1)
        positions = self.param("positional_embedding", scaled, (tokens, width))
        x = x + positions.astype(self.dtype)[None]
        x = layer_norm(stack.eps, self.dtype, "ln_pre")(x)
        x = Transformer(stack, False, self.dtype, self.kernel, name="transformer")(x)
        x = layer_norm(stack.eps, self.dtype, "ln_post")(x[:, 0])
        return project(x, self.param("proj", scaled, (width, self.embed_dim)), self.dtype)
