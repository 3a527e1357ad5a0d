"""What both towers of CLIP are built of: attention, MLP, and the block around them."""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxinf.models.clip.config import TransformerConfig

AttentionKernel: TypeAlias = Literal["xla", "cudnn"] | None
"""Handed to `jax.nn.dot_product_attention`: None is jax's own choice, "cudnn" the fused kernel of
NVIDIA GPUs (16-bit numbers only; it has no forward-mode derivatives)."""


def fused_attention(dtype: Any) -> AttentionKernel:
    """The kernel to encode with: jax's own fused one where the device has one, by trying it.

    Not the default of `load`: a model that is to be differentiated forwards must not have it.

    Args:
        dtype: of the computation.

    Example:
        >>> fused_attention(jnp.float32) is None
        True
    """
    if jax.default_backend() != "gpu" or jnp.dtype(dtype).itemsize != 2:
        return None
    probe = jax.ShapeDtypeStruct((2, 50, 4, 64), dtype)
    attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    try:
        jax.jit(attend).lower(probe, probe, probe).compile()
    except (RuntimeError, ValueError, NotImplementedError):  # no cuDNN, or too old a device
        return None
    return "cudnn"


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


class InProjection(nn.Module):
    """Queries, keys and values float[B, ·, width] by one packed matrix, as PyTorch keeps it."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B T W"], asking: Float[jax.Array, "B Q W"] | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Keys and values of all positions; queries of them, or of `asking`, some of them."""
        width = x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        kernel = self.param("kernel", init, (width, 3 * width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)[
            None, None
        ]
        if asking is None:
            query, key, value = jnp.split(x @ kernel + bias, 3, axis=-1)
            return query, key, value
        query = asking @ kernel[:, :width] + bias[..., :width]
        key, value = jnp.split(x @ kernel[:, width:] + bias[..., width:], 2, axis=-1)
        return query, key, value


class Attention(nn.Module):
    """Multi-head self-attention, float[B, T, width] -> float[B, T, width]."""

    heads: int
    causal: bool
    out_std: float
    dtype: Any
    kernel: AttentionKernel

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B T W"], at: Int[jax.Array, " B"] | None = None
    ) -> Float[jax.Array, "B Q W"]:
        """With `causal`, position t sees positions 0 to t; with `at`, that one alone is asked."""
        batch, length, width = x.shape
        project_in = InProjection(self.dtype, name="in_proj")
        query, key, value = (
            part.reshape(batch, -1, self.heads, width // self.heads)
            for part in project_in(x, None if at is None else row_at(x, at))
        )
        mask = None
        if at is not None and self.causal:
            mask = (jnp.arange(length)[None] <= at[:, None])[:, None, None]
        mixed = jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=mask,
            is_causal=self.causal and at is None,
            # the fused kernel is made for many queries
            implementation=self.kernel if at is None else "xla",
        )
        return nn.Dense(
            width,
            kernel_init=nn.initializers.normal(self.out_std),
            dtype=self.dtype,
            name="out_proj",
        )(mixed.reshape(batch, -1, width))


def row_at(x: Float[jax.Array, "B T W"], at: Int[jax.Array, " B"]) -> Float[jax.Array, "B 1 W"]:
    """One position of each sequence.

    Example:
        >>> row_at(jnp.arange(6.0).reshape(2, 3, 1), jnp.array([2, 0])).ravel().tolist()
        [2.0, 3.0]
    """
    return jnp.take_along_axis(x, at[:, None, None], axis=1)


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
    def __call__(
        self, x: Float[jax.Array, "B T W"], at: Int[jax.Array, " B"] | None = None
    ) -> Float[jax.Array, "B Q W"]:
        """float[B, T, width] -> float[B, T, width], or of the one position `at`, [B, 1, width]."""
        config, dtype = self.config, self.dtype
        # what is added to the residual stream starts small, the smaller the deeper the stack
        out_std = config.width**-0.5 * (2 * config.layers) ** -0.5
        attend = Attention(config.heads, self.causal, out_std, dtype, self.kernel, name="attn")
        mixed = attend(layer_norm(config.eps, dtype, "ln_1")(x), at)
        x = (x if at is None else row_at(x, at)) + mixed
        return x + MLP(config, out_std, dtype, name="mlp")(layer_norm(config.eps, dtype, "ln_2")(x))


class Transformer(nn.Module):
    """A stack of blocks, `resblocks_0`, `resblocks_1`, ...; what comes out is one position of each.

    CLIP reads one token of each sequence, so the last block computes that one alone: the same
    numbers for about a twelfth less work in a stack of twelve.

    Initialised as in openai/CLIP, `CLIP.initialize_parameters`.
    """

    config: TransformerConfig
    causal: bool
    dtype: Any
    kernel: AttentionKernel

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B T W"], at: Int[jax.Array, " B"]
    ) -> Float[jax.Array, "B W"]:
        """float[B, T, width] -> float[B, width], at the positions given."""
        for layer in range(self.config.layers):
            last = layer == self.config.layers - 1
            block = Block(
                self.config, self.causal, self.dtype, self.kernel, name=f"resblocks_{layer}"
            )
            x = block(x, at if last else None)
        return x[:, 0]


def project(
    features: Float[jax.Array, "B W"], matrix: Float[jax.Array, "W D"], dtype: Any
) -> Float[jax.Array, "B D"]:
    """Multiply in the tower's precision, sum and return in float32."""
    return jnp.dot(features.astype(dtype), matrix.astype(dtype), preferred_element_type=jnp.float32)
