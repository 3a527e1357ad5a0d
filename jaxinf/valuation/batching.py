"""A map over examples or models, so many at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinf.typing import PyTree


def map_in_batches(fn: Callable[[PyTree], PyTree], xs: PyTree, *, batch_size: int) -> PyTree:
    """Apply `fn` to every row, vmapped over at most `batch_size` rows at a time.

    As `jax.lax.map`, but in batches of one size, the last one padded by its last row, so that
    `fn` is compiled once: a model's training loop compiles for longer than it runs.

    Args:
        fn: function of one row of `xs`.
        xs: pytree of arrays with a common leading axis N.
        batch_size: most rows at a time.

    Returns:
        Pytree of arrays with leading axis N.

    Example:
        >>> map_in_batches(lambda x: 2 * x, jnp.arange(5), batch_size=3).tolist()
        [0, 2, 4, 6, 8]
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    num_batches = -(-count // batch_size)
    size = -(-count // num_batches)
    rows = jnp.minimum(jnp.arange(num_batches * size), count - 1).reshape(num_batches, size)
    results = jax.lax.map(lambda chosen: jax.vmap(fn)(jax.tree.map(lambda a: a[chosen], xs)), rows)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], results)
