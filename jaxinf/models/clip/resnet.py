"""CLIP's ResNet: a stem of three convolutions, antialiased strides, attention pooling.

BatchNorm statistics are the collection "batch_stats": used as they are with `train=False`,
recomputed from the batch with `train=True` (then `apply` needs `mutable=["batch_stats"]`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.models.clip.config import ResNetConfig


def _pool(x: jax.Array, stride: int) -> jax.Array:
    return nn.avg_pool(x, (stride, stride), strides=(stride, stride)) if stride > 1 else x


def _conv(channels: int, kernel: int, dtype: Any, name: str, stride: int = 1) -> nn.Conv:
    return nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        dtype=dtype,
        name=name,
    )


def _norm(train: bool, dtype: Any, name: str, scale: float = 1.0) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.constant(scale),
        dtype=dtype,
        name=name,
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the stride is an average pooling before the last one."""

    channels: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W c"], train: bool) -> jax.Array:
        """float[B, H, W, c] -> float[B, H / stride, W / stride, 4 channels]."""
        out, dtype = 4 * self.channels, self.dtype
        y = nn.relu(_norm(train, dtype, "bn1")(_conv(self.channels, 1, dtype, "conv1")(x)))
        y = nn.relu(_norm(train, dtype, "bn2")(_conv(self.channels, 3, dtype, "conv2")(y)))
        y = _conv(out, 1, dtype, "conv3")(_pool(y, self.stride))
        y = _norm(train, dtype, "bn3", scale=0.0)(y)
        if self.stride > 1 or x.shape[-1] != out:
            x = _conv(out, 1, dtype, "downsample_0")(_pool(x, self.stride))
            x = _norm(train, dtype, "downsample_1")(x)
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """Attention over all positions, asked by their mean: float[B, H, W, c] -> float32[B, D]."""

    heads: int
    embed_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W c"]) -> Float[jax.Array, "B D"]:
        """Features, not normalised."""
        batch, height, columns, width = x.shape
        init = nn.initializers.normal(width**-0.5)
        x = x.reshape(batch, height * columns, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        positions = self.param("positional_embedding", init, (x.shape[1], width))
        x = x + positions.astype(self.dtype)[None]

        def heads(name: str, tokens: jax.Array) -> jax.Array:
            dense = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=name)
            return dense(tokens).reshape(*tokens.shape[:2], self.heads, width // self.heads)

        pooled = jax.nn.dot_product_attention(
            heads("q_proj", x[:, :1]),
            heads("k_proj", x),
            heads("v_proj", x),
            implementation="xla",  # one query: nothing to fuse
        )
        dense = nn.Dense(self.embed_dim, kernel_init=init, dtype=self.dtype, name="c_proj")
        return dense(pooled.reshape(batch, width)).astype(jnp.float32)


class ModifiedResNet(nn.Module):
    """Images float[B, S, S, 3] -> features float32[B, D].

    Attributes:
        config: the tower.
        embed_dim: D.
        dtype: of the computation; parameters stay float32.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021, section 2.4.
    """

    config: ResNetConfig
    embed_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[jax.Array, "B S S 3"], train: bool = False
    ) -> Float[jax.Array, "B D"]:
        """Features, not normalised."""
        config, dtype = self.config, self.dtype
        x = images
        stem = ((config.width // 2, 2), (config.width // 2, 1), (config.width, 1))
        for index, (channels, stride) in enumerate(stem, start=1):
            x = _conv(channels, 3, dtype, f"conv{index}", stride)(x)
            x = nn.relu(_norm(train, dtype, f"bn{index}")(x))
        x = _pool(x, 2)
        for stage, count in enumerate(config.blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                name = f"layer{stage + 1}_{block}"
                x = Bottleneck(config.width * 2**stage, stride, dtype, name=name)(x, train)
        pool = AttentionPool(config.heads, self.embed_dim, dtype, name="attnpool")
        return pool(x)
