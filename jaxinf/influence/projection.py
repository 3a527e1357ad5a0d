"""Random projections of gradients, without ever holding the projection matrix."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

# How much of the P × dim sign matrix is unpacked at a time.
_SIGN_BYTES = 16 << 20
_BITS = 32


def project(vector: Float[jax.Array, " P"], key: jax.Array, dim: int) -> Float[jax.Array, " dim"]:
    """Multiply by a P × dim matrix of random signs over √dim; inner products are kept on average.

    The signs are drawn a block of rows at a time, 32 from one random word, from the key and the
    number of the block: equal keys are equal matrices. Under `vmap` over vectors they are drawn
    once for all.

    Args:
        vector: one gradient.
        key: which matrix.
        dim: how many numbers are left.

    Returns:
        The projection; the relative error of a norm is about 1 / √(2 dim).

    Example:
        >>> vector = jnp.array([3.0] + [0.0] * 99 + [4.0])
        >>> jnp.linalg.norm(project(vector, jax.random.key(0), 4096)).round(0).item()
        5.0
    """
    words = -(-dim // _BITS)
    width = words * _BITS
    rows = max(1, min(vector.size, _SIGN_BYTES // (width * vector.dtype.itemsize)))
    blocks = -(-vector.size // rows)
    padded = jnp.pad(vector, (0, blocks * rows - vector.size)).reshape(blocks, rows)

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        number, part = block
        signs = _signs(jax.random.fold_in(key, number), rows, words, vector.dtype)
        return total + part @ signs, None

    start = jnp.zeros(width, vector.dtype)
    with jax.default_matmul_precision("highest"):
        total = lax.scan(add, start, (jnp.arange(blocks), padded))[0]
    return total[:dim] / jnp.sqrt(jnp.asarray(dim, vector.dtype))


def _signs(key: jax.Array, rows: int, words: int, dtype: jax.typing.DTypeLike) -> jax.Array:
    drawn = jax.random.bits(key, (rows, words, 1), jnp.uint32)
    places = jnp.arange(_BITS, dtype=jnp.uint32)[None, None]
    bits = (drawn >> places) & jnp.uint32(1)
    return (1 - 2 * bits.astype(dtype)).reshape(rows, words * _BITS)
