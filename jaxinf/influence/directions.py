"""From a query to a direction in parameter space: what the query does to the model."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxinf.influence.queries import QueryGroups, group_loss
from jaxinf.typing import Params, PyTree

Mode = Literal["descent", "ascent"]


class Direction(NamedTuple):
    """One query's displacement of the parameters, and the query's loss before and after it."""

    displacement: Params
    loss_before: jax.Array
    loss_after: jax.Array


def optimizer_steps(
    loss: Partial,
    params: Params,
    group: QueryGroups,
    optimizer: optax.GradientTransformation,
    steps: int,
    mode: Mode,
) -> Direction:
    """Update the model on one query alone: `steps` steps of any optax optimiser.

    The displacement is summed apart from the parameters, so that steps smaller than the
    parameters' rounding are not lost.

    Args:
        loss: per-example loss.
        params: where to start.
        group: one query, leading axis n.
        optimizer: its state starts fresh.
        steps: how many.
        mode: `"descent"` lowers the query's loss, `"ascent"` raises it.
    """
    sign = 1.0 if mode == "descent" else -1.0
    objective = lambda at: sign * group_loss(loss, at, group)

    def step(carry: tuple[Params, PyTree], _: Any) -> tuple[tuple[Params, PyTree], jax.Array]:
        moved_by, optimizer_state = carry
        at = add(params, moved_by)
        value, gradient = jax.value_and_grad(objective)(at)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, at)
        moved_by = jax.tree.map(lambda a, u: a + u.astype(a.dtype), moved_by, updates)
        return (moved_by, optimizer_state), sign * value

    start = (jax.tree.map(_wide_zeros, params), optimizer.init(params))
    if steps == 1:
        (moved_by, _), value = step(start, None)
        before = value
    else:
        (moved_by, _), values = lax.scan(step, start, length=steps)
        before = values[0]
    after = group_loss(loss, add(params, moved_by), group)
    return Direction(moved_by, before, after)


def query_gradient(loss: Partial, params: Params, group: QueryGroups) -> Direction:
    """The plain gradient of the query's loss; there is no step, so the loss does not change."""
    value, gradient = jax.value_and_grad(lambda at: group_loss(loss, at, group))(params)
    return Direction(gradient, value, value)


def map_queries(fn: Callable[[Any], PyTree], params: Params, queries: PyTree) -> PyTree:
    """Apply a jitted `fn` to each query (leading axis K) by itself, and stack what comes out.

    Queries are few, so they are separate calls: XLA on a CPU runs the backward pass of a
    convolution several times slower inside a loop of its own. Where the caller traces, it is one
    program all the same.
    """
    leaves = jax.tree.leaves(queries)
    if any(isinstance(leaf, Tracer) for leaf in (*leaves, *jax.tree.leaves(params))):
        return lax.map(fn, queries)
    each = range(leaves[0].shape[0])
    of_each = [fn(jax.tree.map(lambda a, k=k: a[k], queries)) for k in each]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *of_each)


def add(params: Params, displacement: Params) -> Params:
    """`params + displacement`, in the dtype of `params`."""
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, displacement)


def squared_norm(tree: PyTree) -> jax.Array:
    """Sum of squares over all leaves, accumulated in float32 or wider."""
    squares = [jnp.sum(jnp.square(a.astype(_wide(a.dtype)))) for a in jax.tree.leaves(tree)]
    return jnp.sum(jnp.stack(squares))


def global_norm(tree: PyTree) -> jax.Array:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(squared_norm(tree))


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _wide_zeros(a: jax.Array) -> jax.Array:
    return jnp.zeros(jnp.shape(a), _wide(jnp.result_type(a)))
