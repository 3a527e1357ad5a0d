"""What both towers of CLIP are built of: attention, MLP, and the block around them."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.models.clip.config import TransformerConfig

AttentionKernel: TypeAlias = Literal["xla", "cudnn"] | None
"""Handed to `jax.nn.dot_product_attention`: None is jax's own choice, "cudnn" the fused kernel of
NVIDIA GPUs (16-bit numbers only; it has no forward-mode derivatives)."""


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x·σ(1.702 x)`, what OpenAI trained with in place of the GELU.

    Example:
        >>> quick_gelu(jnp.array([-1.0, 0.0, 1.0])).tolist()
        [-0.154..., 0.0, 0.845...]
    """
    return x * nn.sigmoid(1.702 * x)


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function that an `Activation` names."""
    # jax.nn.gelu is the tanh approximation unless told otherwise
    functions = {
        "quick_gelu": quick_gelu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    }
    return functions[name]


def layer_norm(eps: float, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm with statistics in float32, the variance in two passes as PyTorch's."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, dtype=dtype, name=name)


class Attention(nn.Module):
    """Multi-head self-attention, float[B, T, width] -> float[B, T, width]."""

    heads: int
    causal: bool
    out_std: float
    dtype: Any
    kernel: AttentionKernel

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        """With `causal`, position t sees positions 0 to t."""
        batch, length, width = x.shape
        init = nn.initializers.normal(width**-0.5)
        packed = nn.Dense(3 * width, kernel_init=init, dtype=self.dtype, name="in_proj")(x)
        query, key, value = jnp.moveaxis(
            packed.reshape(batch, length, 3, self.heads, width // self.heads), 2, 0
        )
        mixed = jax.nn.dot_product_attention(
            query, key, value, is_causal=self.causal, implementation=self.kernel
        )
        return nn.Dense(
            width,
            kernel_init=nn.initializers.normal(self.out_std),
            dtype=self.dtype,
            name="out_proj",
        )(mixed.reshape(batch, length, width))


class MLP(nn.Module):
    """Two dense layers with the tower's activation between."""

    config: TransformerConfig
    out_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        """float[B, T, width] -> float[B, T, width]."""
        config = self.config
        hidden = nn.Dense(
            config.mlp_width,
            kernel_init=nn.initializers.normal((2 * config.width) ** -0.5),
            dtype=self.dtype,
            name="c_fc",
        )(x)
        return nn.Dense(
            config.width,
            kernel_init=nn.initializers.normal(self.out_std),
            dtype=self.dtype,
            name="c_proj",
        )(activation(config.activation)(hidden))


class Block(nn.Module):
    """Attention and MLP, LayerNorm before each, added to the residual stream."""

    config: TransformerConfig
    causal: bool
    dtype: Any
    kernel: AttentionKernel

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        """float[B, T, width] -> float[B, T, width]."""
        config, dtype = self.config, self.dtype
        # what is added to the residual stream starts small, the smaller the deeper the stack
        out_std = config.width**-0.5 * (2 * config.layers) ** -0.5
        attend = Attention(config.heads, self.causal, out_std, dtype, self.kernel, name="attn")
        x = x + attend(layer_norm(config.eps, dtype, "ln_1")(x))
        return x + MLP(config, out_std, dtype, name="mlp")(layer_norm(config.eps, dtype, "ln_2")(x))


class Transformer(nn.Module):
    """A stack of blocks, `resblocks_0`, `resblocks_1`, ...

    Initialised as in openai/CLIP, `CLIP.initialize_parameters`.
    """

    config: TransformerConfig
    causal: bool
    dtype: Any
    kernel: AttentionKernel

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        """float[B, T, width] -> float[B, T, width]."""
        for layer in range(self.config.layers):
            name = f"resblocks_{layer}"
            x = Block(self.config, self.causal, self.dtype, self.kernel, name=name)(x)
        return x


def project(
    features: Float[jax.Array, "B W"], matrix: Float[jax.Array, "W D"], dtype: Any
) -> Float[jax.Array, "B D"]:
    """Multiply in the tower's precision, sum and return in float32."""
    return jnp.dot(features.astype(dtype), matrix.astype(dtype), preferred_element_type=jnp.float32)
