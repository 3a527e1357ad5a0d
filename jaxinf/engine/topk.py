"""Streaming top-k per query: K·k numbers are held, never K·N.

Ties go to the lower example index, whatever the batch size and the number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxinf.typing import AnyArray


class TopK(NamedTuple):
    """The k largest scores so far per query, largest first; free places hold -inf and -1."""

    values: Float[AnyArray, "*D K k"]
    rows: Int[AnyArray, "*D K k"]


def empty_topk(num_queries: int, k: int, dtype: jnp.dtype, shards: int | None = None) -> TopK:
    """Nothing seen yet; with `shards`, one state per device along a leading axis."""
    shape = (num_queries, k) if shards is None else (shards, num_queries, k)
    return TopK(np.full(shape, -np.inf, dtype), np.full(shape, -1, np.int32))


def update_topk(state: TopK, scores: Float[jax.Array, "K B"], rows: Int[jax.Array, " B"]) -> TopK:
    """Fold one batch of scores in.

    Args:
        state: values and rows [K, k].
        scores: float[K, B]. NaN counts as -inf.
        rows: int32[B], ascending and larger than all rows seen before; -1 marks padding.

    Returns:
        The new state.

    Example:
        >>> state = empty_topk(1, 2, jnp.float32)
        >>> state = update_topk(state, jnp.array([[1.0, 3.0, 2.0]]), jnp.arange(3))
        >>> state.values.tolist(), state.rows.tolist()
        ([[3.0, 2.0]], [[1, 2]])
    """
    scores = jnp.where((rows < 0)[None, :] | jnp.isnan(scores), -jnp.inf, scores)
    values = jnp.concatenate([state.values, scores], axis=1)
    numbers = jnp.concatenate([state.rows, jnp.broadcast_to(rows[None, :], scores.shape)], axis=1)
    # lax.top_k keeps the earlier of equals: what was held before, then the lower row
    best, at = lax.top_k(values, state.values.shape[1])
    kept = jnp.take_along_axis(numbers, at, axis=1)
    return TopK(best, jnp.where(jnp.isneginf(best), -1, kept))


def merge_topk(state: TopK) -> TopK:
    """Merge the states of all devices [D, K, k] into one [K, k] on the host."""
    values, rows = (np.moveaxis(np.asarray(a), 0, 1) for a in state)
    num_queries, _, k = values.shape
    values, rows = values.reshape(num_queries, -1), rows.reshape(num_queries, -1)
    # equal scores go by row; free places (-inf, -1) come last
    order = np.lexsort((np.where(rows < 0, np.iinfo(np.int32).max, rows), -values), axis=1)[:, :k]
    return TopK(np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1))
