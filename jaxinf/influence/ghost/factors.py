"""The query side: gradients whose leaves stay factors where that is cheaper to score with."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.influence.directions import squared_norm
from jaxinf.influence.ghost.capture import capture, entering, leaving, prepare, shapes_of
from jaxinf.influence.ghost.contract import Factors
from jaxinf.influence.ghost.routes import cheapest, routes
from jaxinf.influence.ghost.scores import MixedDirections
from jaxinf.influence.ghost.trace import Trace, trace
from jaxinf.influence.ghost.uses import Linear, find_uses, sole_uses
from jaxinf.influence.queries import QueryGroups, group_loss
from jaxinf.typing import Params


def factored_leaves(
    taken: Trace, num_directions: int, per_query: int, *, forward: bool = False
) -> tuple[int, ...]:
    """The leaves of params whose query gradients are better kept as factors.

    Args:
        taken: the trace of the loss.
        num_directions: K.
        per_query: examples per query.
        forward: whether scoring is by forward mode, which has no cheaper route for what is not
            factored: factors then pay below rank I·O / (I + O).
    """
    found = []
    for leaf, use in sole_uses(taken, find_uses(taken)).items():
        if not isinstance(use, Linear):
            continue
        sizes = use.sizes
        rank = per_query * sizes.positions
        if forward:
            pays = rank * (sizes.entering + sizes.leaving) < sizes.entering * sizes.leaving
        else:
            kept = cheapest(routes(sizes, num_directions, rank)).flops
            pays = kept < cheapest(routes(sizes, num_directions)).flops
        if pays:
            found.append(leaf)
    return tuple(sorted(found))


def mixed_gradient(
    loss: Partial, params: Params, group: QueryGroups, factored: tuple[int, ...]
) -> tuple[MixedDirections, jax.Array, jax.Array]:
    """One query's gradient, the leaves in `factored` as factors of rank (examples × positions).

    Args:
        loss: per-example loss.
        params: where to differentiate.
        group: one query, leading axis n.
        factored: see `factored_leaves`.

    Returns:
        The direction (without an axis K), the query's loss, and the norm of its gradient.
    """
    leaves, structure = jax.tree.flatten(params)
    rest = [i for i in range(len(leaves)) if i not in factored]

    def of_rest(some: list[Any]) -> jax.Array:
        at = list(leaves)
        for i, value in zip(rest, some, strict=True):
            at[i] = value
        return group_loss(loss, jax.tree.unflatten(structure, at), group)

    value, gradients = jax.value_and_grad(of_rest)([leaves[i] for i in rest])
    squared = squared_norm(gradients) if rest else jnp.zeros((), jnp.float32)
    dense: list[Any] = [None] * len(leaves)
    for i, gradient in zip(rest, gradients, strict=True):
        dense[i] = gradient
    factors: list[Factors | None] = [None] * len(leaves)
    if factored:
        taken = trace(loss, params, shapes_of(group.examples))
        traffic = capture(prepare(taken, loss, params), group.examples)
        used_once = sole_uses(taken, find_uses(taken))
        for leaf in factored:
            use = used_once[leaf]
            assert isinstance(use, Linear)
            x, g = entering(use, traffic), leaving(use, traffic)
            weights = group.weights.astype(g.dtype).reshape(-1, 1, 1, 1)
            found = Factors(_join(x), _join(g * weights))
            factors[leaf] = found
            whole = jnp.einsum("sri,sro->sio", *found)
            squared = squared + squared_norm(whole)
    return MixedDirections(tuple(dense), tuple(factors)), value, jnp.sqrt(squared)


def _join(a: jax.Array) -> jax.Array:
    """[n, S, T, ·] -> [S, n·T, ·]."""
    moved = jnp.swapaxes(a, 0, 1)
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])
