"""A small decoder-only transformer for sequences of tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinf.errors import InputError


class TransformerBlock(nn.Module):
    """Causal self-attention and a GELU MLP of 4 times the width, LayerNorm before each."""

    num_heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, T, width] -> float[B, T, width]; position t sees positions 0 to t."""
        batch, length, width = x.shape
        qkv = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(name="norm1")(x))
        qkv = qkv.reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        # flax's own: it keeps float64, and has forward-mode derivatives, which fused kernels have
        # not
        heads = nn.dot_product_attention(
            qkv[:, :, 0],
            qkv[:, :, 1],
            qkv[:, :, 2],
            mask=jnp.tril(jnp.ones((1, 1, length, length), bool)),
        )
        x = x + nn.Dense(width, name="out")(heads.reshape(batch, length, width))
        hidden = nn.gelu(nn.Dense(4 * width, name="mlp1")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(width, name="mlp2")(hidden)


class Transformer(nn.Module):
    """Decoder-only transformer: tokens int[B, T] -> logits float[B, T, V] of the next token.

    Learned positions, LayerNorm before every sublayer and at the end, no dropout.

    Attributes:
        vocab_size: V, the number of tokens.
        num_layers: number of blocks.
        width: size of the residual stream, a multiple of `num_heads`.
        num_heads: attention heads.
        max_length: the longest T.
        tie_head: use the token embedding, transposed, as the output layer.

    Raises:
        InputError: when applied to a sequence longer than `max_length`, or with a width that
            the heads do not divide.

    Example:
        >>> model = Transformer(vocab_size=11, num_layers=1, width=8, num_heads=2, max_length=6)
        >>> tokens = jnp.zeros((2, 5), jnp.int32)
        >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), tokens)[0]).shape
        (2, 5, 11)
    """

    vocab_size: int
    num_layers: int = 2
    width: int = 128
    num_heads: int = 4
    max_length: int = 128
    tie_head: bool = False

    def setup(self):
        """Define the embeddings and the output layer."""
        init = nn.initializers.normal(0.02)
        self.tokens = nn.Embed(self.vocab_size, self.width, embedding_init=init)
        self.positions = nn.Embed(self.max_length, self.width, embedding_init=init)
        if not self.tie_head:
            self.head = nn.Dense(self.vocab_size, use_bias=False)

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Penultimate features float[B, T, width]; `train` changes nothing."""
        length = x.shape[1]
        if length > self.max_length:
            raise InputError(f"{length} tokens, but max_length is {self.max_length}: cut them")
        if self.width % self.num_heads:
            raise InputError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        h = self.tokens(x) + self.positions(jnp.arange(length)[None])
        for layer in range(self.num_layers):
            h = TransformerBlock(self.num_heads, name=f"block_{layer}")(h)
        return nn.LayerNorm(name="norm")(h)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits float[B, T, V]; `train` changes nothing."""
        h = self.features(x, train)
        return self.tokens.attend(h) if self.tie_head else self.head(h)
