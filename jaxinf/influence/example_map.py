"""A function of one example over a batch, a bounded number of examples at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxinf.typing import Batch

# Beyond that many chunks, compiling them one by one costs more than a loop.
_UNROLLED = 16


def map_examples(fn: Callable[[Batch], Any], batch: Batch, chunk: int) -> Any:
    """`fn` of every example of a batch, `chunk` of them at once.

    On a CPU a few chunks stand one after the other in the program rather than in a loop: inside of
    a loop XLA takes its slow route for backward convolutions, several times slower.

    Args:
        fn: of one example (no leading axis).
        batch: leading axis B.
        chunk: examples whose intermediate arrays are held at once.

    Returns:
        What `fn` returns, with a leading axis B.

    Example:
        >>> map_examples(lambda example: example["x"] ** 2, {"x": jnp.arange(3)}, chunk=2).tolist()
        [0, 1, 4]
    """
    rows = jax.tree.leaves(batch)[0].shape[0]
    if chunk == 1:
        return lax.map(fn, batch)
    try:
        if chunk >= rows:
            return jax.vmap(fn)(batch)
        if rows <= chunk * _UNROLLED and jax.default_backend() == "cpu":
            return _one_after_the_other(jax.vmap(fn), batch, rows, chunk)
        return lax.map(fn, batch, batch_size=chunk)
    except NotImplementedError:
        # jax 0.7 cannot vmap the gradient of a convolution: one example at a time there
        return lax.map(fn, batch)


def _one_after_the_other(fn: Callable[[Batch], Any], batch: Batch, rows: int, chunk: int) -> Any:
    found: list[Any] = []
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        # 0, which XLA knows only when the last chunk is done: else it holds all of them at once
        first = start + (_waits_for(found[-1]) if found else 0)
        take = lambda a, first=first, size=size: lax.dynamic_slice_in_dim(a, first, size)
        found.append(fn(jax.tree.map(take, batch)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)


def _waits_for(result: Any) -> jax.Array:
    sums = [jnp.sum(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(result)]
    return (jnp.stack(sums).max() > jnp.inf).astype(jnp.int32)
