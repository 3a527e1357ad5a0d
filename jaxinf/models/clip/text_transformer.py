"""CLIP's text transformer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxinf.errors import InputError
from jaxinf.models.clip.blocks import AttentionKernel, Transformer, layer_norm, project
from jaxinf.models.clip.config import TextConfig


class TextTransformer(nn.Module):
    """Tokens int[B, T] -> features float32[B, D]: those of the end token, projected.

    T may be less than the context length: attention is causal, so what follows the end token
    changes nothing. A token outside the vocabulary gives NaN for its row.

    Attributes:
        config: the tower.
        embed_dim: D.
        dtype: of the computation; parameters stay float32.
        kernel: of the attention.

    Raises:
        InputError: for tokens that are not int[B, T], or more than the context length.
    """

    config: TextConfig
    embed_dim: int
    dtype: Any = jnp.float32
    kernel: AttentionKernel = None

    @nn.compact
    def __call__(self, tokens: Int[jax.Array, "B T"]) -> Float[jax.Array, "B D"]:
        """Features, not normalised."""
        config, stack = self.config, self.config.transformer
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise InputError(f"tokens are {tokens.dtype}{list(tokens.shape)}: pass int[B, T]")
        length = tokens.shape[1]
        if length > config.context_length:
            raise InputError(
                f"{length} tokens, but the context length is {config.context_length}: cut them"
            )
        embed = nn.Embed(
            config.vocab_size,
            stack.width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
            name="token_embedding",
        )
        positions = self.param(
            "positional_embedding",
            nn.initializers.normal(0.01),
            (config.context_length, stack.width),
        )
        x = embed(tokens) + positions[:length].astype(self.dtype)[None]
        marks = tokens if config.end_token is None else tokens == config.end_token
        end = jnp.argmax(marks, axis=1)
        x = Transformer(stack, True, self.dtype, self.kernel, name="transformer")(x, end)
        x = layer_norm(stack.eps, self.dtype, "ln_final")(x)
        shape, init = (stack.width, self.embed_dim), nn.initializers.normal(stack.width**-0.5)
        return project(x, self.param("text_projection", init, shape), self.dtype)
