"""CLIP's vision transformer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.models.clip.blocks import AttentionKernel, Transformer, layer_norm, project
from jaxinf.models.clip.config import VisionTransformerConfig


class PatchEmbedding(nn.Module):
    """Each P × P patch by one matrix: a convolution whose stride is its size, as one product."""

    patch: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, images: Float[jax.Array, "B S S 3"]) -> Float[jax.Array, "B T W"]:
        """float[B, S, S, 3] -> float[B, (S // P)², width], patches row by row."""
        patch, width = self.patch, self.width
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (patch, patch, 3, width)).astype(self.dtype)
        count, side = images.shape[0], images.shape[1] // patch
        # pixels that fill no patch are left out, as a convolution leaves them
        whole = images[:, : side * patch, : side * patch].astype(self.dtype)
        tiles = whole.reshape(count, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        return tiles.reshape(count, side**2, patch**2 * 3) @ kernel.reshape(-1, width)


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
        x = PatchEmbedding(patch, width, self.dtype, name="conv1")(images)
        first = self.param("class_embedding", scaled, (width,)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, width)), x], axis=1)
        positions = self.param("positional_embedding", scaled, (tokens, width))
        x = x + positions.astype(self.dtype)[None]
        x = layer_norm(stack.eps, self.dtype, "ln_pre")(x)
        class_token = jnp.zeros(x.shape[0], jnp.int32)
        x = Transformer(stack, False, self.dtype, self.kernel, name="transformer")(x, class_token)
        x = layer_norm(stack.eps, self.dtype, "ln_post")(x)
        return project(x, self.param("proj", scaled, (width, self.embed_dim)), self.dtype)
