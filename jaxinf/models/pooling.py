"""Max-pooling whose derivatives are as fast as its values."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Maximum over windows that do not overlap; rows and columns that fill no window are left out.

    The values are those of `flax.linen.max_pool` with strides of `size`; so are the derivatives,
    but that a maximum which a window holds more than once is shared evenly. They go by a
    comparison and a sum: on a CPU the scatter that flax's gradient takes is slower than the
    convolutions of a network.

    Args:
        x: float[B, H, W, c].
        size: rows and columns of a window.

    Returns:
        float[B, H // size, W // size, c].

    Example:
        >>> max_pool(jnp.arange(20.0).reshape(1, 4, 5, 1))[0, :, :, 0].tolist()
        [[6.0, 8.0], [16.0, 18.0]]
    """

    @jax.custom_jvp
    def pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (size, size), strides=(size, size))

    @pool.defjvp
    def derivative(primals, tangents):
        largest = pool(*primals)
        batch, rows, columns, channels = largest.shape

        def windows(a: jax.Array) -> jax.Array:
            a = a[:, : rows * size, : columns * size]
            return a.reshape(batch, rows, size, columns, size, channels)

        is_largest = windows(*primals) == largest[:, :, None, :, None]
        moved = jnp.where(is_largest, windows(*tangents), 0).sum(axis=(2, 4))
        return largest, moved / is_largest.sum(axis=(2, 4))

    return pool(x)
