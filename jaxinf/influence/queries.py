"""Queries: one example each, or a group of examples taken as one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.errors import InputError, check_examples
from jaxinf.typing import Batch, Params, PerExampleLoss


class QueryGroups(NamedTuple):
    """K queries of up to n examples each.

    Attributes:
        examples: pytree with leading axes [K, n]; short groups are padded by repetition.
        weights: float32[K, n], summing to one along each row; zero for padding.
    """

    examples: Batch
    weights: Float[jax.Array, "K n"]

    @property
    def size(self) -> int:
        """K, the number of queries."""
        return self.weights.shape[0]


def group_queries(examples: Batch, group_ids: np.ndarray | None = None) -> QueryGroups:
    """Take groups of examples as one query each: the query's loss is the mean over its group.

    Args:
        examples: pytree with one leading axis M.
        group_ids: int[M], which group each example belongs to; groups are ordered by id. None
            takes all examples as one group.

    Returns:
        The groups, to be handed to `attribute` in place of single queries.

    Raises:
        InputError: for ids that do not match the examples.

    Example:
        >>> groups = group_queries(np.arange(3.0, dtype=np.float32), np.array([0, 1, 0]))
        >>> groups.examples.tolist(), groups.weights.tolist()
        ([[0.0, 2.0], [1.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]])
    """
    count = check_examples(examples, "queries")
    ids = np.zeros(count, np.int64) if group_ids is None else np.asarray(group_ids)
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        raise InputError(
            f"group_ids must be one integer per query, shape ({count},), not {ids.dtype} of shape "
            f"{ids.shape}"
        )
    members = [np.flatnonzero(ids == group) for group in np.unique(ids)]
    size = max(len(rows) for rows in members)
    rows = np.stack([np.pad(rows, (0, size - len(rows)), mode="edge") for rows in members])
    real = np.arange(size) < np.array([len(rows) for rows in members])[:, None]
    weights = (real / real.sum(axis=1, keepdims=True)).astype(np.float32)
    return QueryGroups(jax.tree.map(lambda a: np.asarray(a)[rows], examples), weights)


def as_groups(queries: Batch | QueryGroups) -> QueryGroups:
    """Single queries as groups of one; groups as they are. Traceable."""
    if isinstance(queries, QueryGroups):
        return queries
    count = jax.tree.leaves(queries)[0].shape[0]
    return QueryGroups(jax.tree.map(lambda a: a[:, None], queries), jnp.ones((count, 1)))


def group_loss(loss_fn: PerExampleLoss, params: Params, group: QueryGroups) -> jax.Array:
    """Weighted mean loss of one group (leading axis n): a scalar."""
    losses = loss_fn(params, group.examples)
    return jnp.sum(losses * group.weights.astype(losses.dtype))
