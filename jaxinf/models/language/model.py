"""One decoder-only transformer for GPT-2, GPT-NeoX and Llama, in flax.linen.

Every projection is a `Dense` of its own (fused ones are split on loading), so that whatever takes
gradients apart layer by layer, such as EK-FAC, sees them all.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxinf.errors import InputError
from jaxinf.models.language.config import LanguageConfig, inverse_wavelengths

_INIT = nn.initializers.normal(0.02)


def activate(name: str, x: jax.Array) -> jax.Array:
    """Apply the activation that a config names."""
    if name in ("gelu", "gelu_tanh"):
        return jax.nn.gelu(x, approximate=name == "gelu_tanh")
    return nn.relu(x) if name == "relu" else nn.silu(x)


def rotate(
    x: Float[jax.Array, "B T H D"], angles: Float[jax.Array, "B T R"]
) -> Float[jax.Array, "B T H D"]:
    """Turn number i of each head together with number i + R by the angle R[i]; keep the rest.

    Example:
        >>> x = jnp.array([1.0, 0.0, 5.0]).reshape(1, 1, 1, 3)
        >>> rotate(x, jnp.full((1, 1, 1), jnp.pi / 2)).round(3).ravel().tolist()
        [-0.0, 1.0, 5.0]
    """
    half = angles.shape[-1]
    cos, sin = (f(angles)[:, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate([*turned, rest], axis=-1)


def visible(
    length: int, segments: Int[jax.Array, "B T"] | None
) -> Bool[jax.Array, "B 1 T T"] | Bool[jax.Array, "1 1 T T"]:
    """Who sees whom: positions up to one's own and, in packed rows, of one's own segment.

    Example:
        >>> visible(3, jnp.array([[1, 1, 2]])).astype(int)[0, 0].tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
    if segments is None:
        return causal
    return causal & (segments[:, None, :, None] == segments[:, None, None, :])


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the last axis, statistics in float32."""

    config: LanguageConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[..., width] -> float[..., width]."""
        eps = self.config.eps
        if self.config.norm == "rms":
            return nn.RMSNorm(epsilon=eps, dtype=self.dtype, name="norm")(x)
        norm = nn.LayerNorm(epsilon=eps, use_fast_variance=False, dtype=self.dtype, name="norm")
        return norm(x)


class Attention(nn.Module):
    """Causal self-attention; several asking heads may share one that answers."""

    config: LanguageConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array | None, mask: jax.Array) -> jax.Array:
        """float[B, T, width] -> float[B, T, width]."""
        config = self.config
        batch, length, width = x.shape

        def project(name: str, heads: int) -> jax.Array:
            size = config.size_of_head
            dense = nn.Dense(
                heads * size, config.qkv_bias, self.dtype, kernel_init=_INIT, name=name
            )
            return dense(x).reshape(batch, length, heads, size)

        query, key, value = (
            project(name, heads)
            for name, heads in zip(
                "qkv", (config.num_heads, config.kv_heads, config.kv_heads), strict=True
            )
        )
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        if config.kv_heads != config.num_heads:
            shared = config.num_heads // config.kv_heads
            key, value = (jnp.repeat(a, shared, axis=2) for a in (key, value))
        # flax's own: it keeps float64, and has forward-mode derivatives, which fused kernels have
        # not
        mixed = nn.dot_product_attention(query, key, value, mask=mask)
        out = nn.Dense(width, config.out_bias, self.dtype, kernel_init=_INIT, name="out")
        return out(mixed.reshape(batch, length, -1))


class Feedforward(nn.Module):
    """One hidden layer, gated or not."""

    config: LanguageConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, T, width] -> float[B, T, width]."""
        config = self.config
        dense = lambda size, name: nn.Dense(
            size, config.mlp_bias, self.dtype, kernel_init=_INIT, name=name
        )
        hidden = dense(config.size_of_mlp, "up")(x)
        if config.gated:
            gate = dense(config.size_of_mlp, "gate")(x)
            hidden = activate(config.activation, gate) * hidden
        else:
            hidden = activate(config.activation, hidden)
        return dense(x.shape[-1], "down")(hidden)


class Block(nn.Module):
    """Attention and hidden layer, a norm before each, added to the residual stream."""

    config: LanguageConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array | None, mask: jax.Array) -> jax.Array:
        """float[B, T, width] -> float[B, T, width]."""
        config, dtype = self.config, self.dtype
        attend = Attention(config, dtype, name="attention")
        mixed = attend(Norm(config, dtype, name="norm1")(x), angles, mask)
        feed = Feedforward(config, dtype, name="mlp")
        norm = Norm(config, dtype, name="norm2")
        if config.parallel:
            return x + mixed + feed(norm(x))
        x = x + mixed
        return x + feed(norm(x))


class CausalLM(nn.Module):
    """Decoder-only transformer: tokens int[B, T] -> logits float[B, T, V] of the next token.

    Attributes:
        config: what it is made of.
        dtype: of the computation; None: that of the parameters.

    Raises:
        InputError: when applied to a sequence longer than the context.

    Example:
        >>> config = LanguageConfig(vocab_size=11, context=6, width=8, num_layers=1, num_heads=2)
        >>> model, tokens = CausalLM(config), jnp.zeros((2, 5), jnp.int32)
        >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), tokens)[0]).shape
        (2, 5, 11)
    """

    config: LanguageConfig
    dtype: Any = None

    def setup(self):
        """Define the embeddings and the output layer."""
        config = self.config
        self.tokens = nn.Embed(
            config.vocab_size, config.width, dtype=self.dtype, embedding_init=_INIT
        )
        if config.rotary_dim is None:
            self.positions = nn.Embed(
                config.context, config.width, dtype=self.dtype, embedding_init=_INIT
            )
        if not config.tie_head:
            self.head = nn.Dense(config.vocab_size, False, self.dtype, kernel_init=_INIT)

    @nn.compact
    def features(
        self,
        tokens: Int[jax.Array, "B T"],
        *,
        positions: Int[jax.Array, "B T"] | None = None,
        segments: Int[jax.Array, "B T"] | None = None,
    ) -> Float[jax.Array, "B T W"]:
        """Hidden states after the last norm.

        Args:
            tokens: int[B, T]; what stands behind a sequence's end changes nothing before it.
            positions: of each token in its sequence; default 0, 1, 2, ...
            segments: which sequence of a packed row each token belongs to; default one sequence.
        """
        config = self.config
        length = tokens.shape[1]
        if length > config.context:
            raise InputError(
                f"{length} tokens, but the model's context is {config.context}: cut or split them"
            )
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
        x, angles = self.tokens(tokens), None
        if config.rotary_dim is None:
            x = x + self.positions(positions)
        else:
            turns = jnp.asarray(np.asarray(inverse_wavelengths(config), np.float32))
            angles = positions[:, :, None].astype(jnp.float32) * turns[None, None]
        mask = visible(length, segments)
        for layer in range(config.num_layers):
            x = Block(config, self.dtype, name=f"block_{layer}")(x, angles, mask)
        return Norm(config, self.dtype, name="norm")(x)

    def __call__(
        self,
        tokens: Int[jax.Array, "B T"],
        *,
        positions: Int[jax.Array, "B T"] | None = None,
        segments: Int[jax.Array, "B T"] | None = None,
    ) -> Float[jax.Array, "B T V"]:
        """Logits of the next token; arguments as in `features`."""
        hidden = self.features(tokens, positions=positions, segments=segments)
        return self.tokens.attend(hidden) if self.config.tie_head else self.head(hidden)
