"""Ghost products: scores and gradient norms of examples whose gradients are never formed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.influence.ghost.capture import capture, in_blocks, prepare, shapes_of
from jaxinf.influence.ghost.contract import Factors, contract
from jaxinf.influence.ghost.trace import Trace, trace
from jaxinf.influence.ghost.uses import Linear, find_uses, sole_uses
from jaxinf.typing import Batch, Params

# What a contraction may make at once, where the caller does not say.
CONTRACTION_BYTES = 256 << 20


class MixedDirections(NamedTuple):
    """K directions, some leaves of which are factors: one entry per leaf of params.

    Attributes:
        dense: [K, *shape], or None where the leaf has factors.
        factors: `Factors` of the leaf as its one use sees it, or None.
    """

    dense: tuple[jax.Array | None, ...]
    factors: tuple[Factors | None, ...]


def as_mixed(directions: Params | MixedDirections) -> MixedDirections:
    """Directions like params (leading axis K) as mixed ones; mixed ones as they are."""
    if isinstance(directions, MixedDirections):
        return directions
    leaves = tuple(jax.tree.leaves(directions))
    return MixedDirections(leaves, (None,) * len(leaves))


def ghost_products(
    loss: Partial,
    params: Params,
    directions: Params | MixedDirections,
    batch: Batch,
    rows: int | None = None,
    budget: float = CONTRACTION_BYTES,
) -> Float[jax.Array, "K B"]:
    """Derivative of each example's loss along each direction, from one backward pass.

    The same numbers as `directional_derivatives`, for any loss that reverse mode takes: about
    two forward passes per example and what the contractions cost (see `routes`).

    Args:
        loss: per-example loss, as from `scoring_loss`.
        params: where to differentiate.
        directions: like params, with a leading axis K; or mixed with factors.
        batch: leading axis B.
        rows: how many examples pass through the model at once; None: all.
        budget: bytes that a contraction may make at once.

    Raises:
        NotTraceable: the loss does not depend on the example.

    Example:
        >>> loss = Partial(lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2)
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> ghost_products(loss, jnp.zeros(2), jnp.eye(2), batch).tolist()
        [[-2.0, 2.0], [0.0, 2.0]]

    Reference: per-example gradient norms of Goodfellow, arXiv 1510.01799, 2015, and ghost
    clipping of Li et al., ICLR 2022, with directions in place of the example itself.
    """
    taken = trace(loss, params, shapes_of(batch))
    prepared = prepare(taken, loss, params)
    uses = find_uses(taken)
    tangents = crossing_tangents(taken, loss, params, as_mixed(directions))

    def block(batch: Batch) -> jax.Array:
        traffic = capture(prepared, batch)
        parts = [contract(prepared, use, traffic, tangents, budget) for use in uses]
        if not parts:  # a loss that uses no parameter
            count = jax.tree.leaves(directions)[0].shape[0]
            return jnp.zeros((jax.tree.leaves(batch)[0].shape[0], count), jnp.float32)
        return jnp.sum(jnp.stack(parts), axis=0)

    return in_blocks(block, batch, rows).T


def crossing_tangents(
    taken: Trace, loss: Partial, params: Params, directions: MixedDirections
) -> dict[Any, Any]:
    """How each value used moves along each direction, computed once for all examples.

    Returns:
        Variable -> [K, *shape], or its `Factors`.
    """
    leaves = jax.tree.leaves(params)
    carried = jax.tree.leaves(loss)
    dense = [i for i, u in enumerate(directions.dense) if u is not None]
    tangents: dict[Any, Any] = {}
    if dense:

        def moved(*some: jax.Array) -> list[Any]:
            at = list(leaves)
            for i, value in zip(dense, some, strict=True):
                at[i] = value
            return taken.values(carried, at)[0]

        def along(*some: jax.Array) -> list[Any]:
            tangent = [u.astype(leaves[i].dtype) for i, u in zip(dense, some, strict=True)]
            return jax.jvp(moved, [leaves[i] for i in dense], tangent)[1]

        found = jax.vmap(along)(*(u for u in directions.dense if u is not None))
        tangents.update(zip(taken.crossing, found, strict=True))
    used_once = sole_uses(taken, find_uses(taken))
    for leaf, factors in enumerate(directions.factors):
        if factors is not None:
            use = used_once[leaf]
            assert isinstance(use, Linear)
            tangents[use.variable] = factors
    return tangents
