"""Norms of per-example gradients, most of them without forming the gradient."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.influence.ghost.capture import (
    Prepared,
    Traffic,
    capture,
    entering,
    in_blocks,
    leaving,
    local_gradient,
    map_rows,
    prepare,
    shapes_of,
    wide,
)
from jaxinf.influence.ghost.routes import cheapest, norm_routes
from jaxinf.influence.ghost.trace import trace
from jaxinf.influence.ghost.uses import Linear, Lookup, Other, Use, find_uses, sole_uses
from jaxinf.typing import Batch, Params


def ghost_norms(
    loss: Partial, params: Params, batch: Batch, rows: int | None = None, budget: float = 256 << 20
) -> Float[jax.Array, " B"]:
    """Norm of each example's gradient, from one forward and one backward pass.

    A kernel that one layer uses has `‖Σ_t x_t ⊗ g_t‖² = Σ_tu (x_t · x_u)(g_t · g_u)`, whichever
    side is cheaper; leaves used in several places are formed an example at a time and summed.
    Its square is an example's influence on itself.

    Args:
        loss: per-example loss, as from `scoring_loss`.
        params: where to differentiate.
        batch: leading axis B.
        rows: how many examples pass through the model at once; None: all.
        budget: bytes that may be made at once.

    Raises:
        NotTraceable: the loss does not depend on the example.

    Example:
        >>> loss = Partial(lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2)
        >>> batch = {"x": jnp.array([[1.0, 0.0], [3.0, 4.0]]), "y": jnp.array([1.0, -1.0])}
        >>> ghost_norms(loss, jnp.zeros(2), batch).tolist()
        [2.0, 10.0]
    """
    taken = trace(loss, params, shapes_of(batch))
    prepared = prepare(taken, loss, params)
    uses = find_uses(taken)
    alone = sole_uses(taken, uses)
    shared = sorted(frozenset[int]().union(*taken.leaves_of.values()) - {*alone})

    def block(batch: Batch) -> jax.Array:
        traffic = capture(prepared, batch)
        parts = [_squares(prepared, use, traffic, budget) for use in alone.values()]
        if shared:
            parts.append(_shared_squares(prepared, uses, traffic, loss, params, shared, budget))
        if not parts:
            return jnp.zeros(jax.tree.leaves(batch)[0].shape[0], jnp.float32)
        return jnp.sqrt(jnp.sum(jnp.stack(parts), axis=0))

    return in_blocks(block, batch, rows)


def _squares(prepared: Prepared, use: Use, traffic: Traffic, budget: float) -> jax.Array:
    if isinstance(use, Linear):
        return _linear_squares(use, traffic, budget)
    if isinstance(use, Lookup):
        found = _row_squares(prepared, use, traffic, budget)
        if found is not None:
            return found

    def one(row: Any) -> jax.Array:
        gradients = _gradients_of(prepared, use, *row)
        return jnp.sum(jnp.stack([_square(g) for _, g in gradients]))

    return map_rows(one, _rows(use, traffic), _bytes(use), budget)


def _linear_squares(use: Linear, traffic: Traffic, budget: float) -> jax.Array:
    route = cheapest(norm_routes(use.sizes), budget)

    def one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, g = row
        dtype = wide(x.dtype)
        if route.name == "gradient":
            return _square(jnp.einsum("sti,sto->sio", x, g, preferred_element_type=dtype))
        alike = jnp.einsum("sti,sui->stu", x, x, preferred_element_type=dtype)
        return jnp.sum(alike * jnp.einsum("sto,suo->stu", g, g, preferred_element_type=dtype))

    return map_rows(one, (entering(use, traffic), leaving(use, traffic)), route.bytes, budget)


def _row_squares(
    prepared: Prepared, use: Lookup, traffic: Traffic, budget: float
) -> jax.Array | None:
    """Of a table of which whole rows are looked up: Σ_tu [same row] g_t · g_u."""
    eqn = prepared.trace.equation(prepared.trace.sites[use.site])
    axes, table = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    whole = tuple(eqn.params["slice_sizes"]) == (1, *table[1:])
    plain = axes.collapsed_slice_dims == (0,) and axes.start_index_map == (0,)
    operands = traffic.operands[use.site]
    if not (whole and plain and len(operands) == 1) or axes.operand_batching_dims:
        return None
    if eqn.params["mode"] == lax.GatherScatterMode.FILL_OR_DROP:
        inside = lambda at: (at >= 0) & (at < table[0])
    else:
        inside = lambda at: jnp.ones_like(at, bool)

    def one(row: Any) -> jax.Array:
        (indices,), (slopes,) = row
        at = indices.reshape(-1)
        # the axes that a row of the table fills, last
        order = [d for d in range(slopes.ndim) if d not in axes.offset_dims]
        g = jnp.transpose(slopes, (*order, *axes.offset_dims)).reshape(at.size, -1)
        g = jnp.where(inside(at)[:, None], g.astype(wide(g.dtype)), 0)
        at = jnp.clip(at, 0, table[0] - 1)
        return jnp.sum((g @ g.T) * (at[:, None] == at[None, :]))

    positions = operands[0][0].size
    return map_rows(one, _rows(use, traffic), 8.0 * positions**2, budget)


def _shared_squares(
    prepared: Prepared,
    uses: list[Use],
    traffic: Traffic,
    loss: Partial,
    params: Params,
    shared: list[int],
    budget: float,
) -> jax.Array:
    """Of leaves that are used more than once, or not as they are: summed, then squared."""
    taken, leaves = prepared.trace, jax.tree.leaves(params)
    concerned = [v for v in taken.crossing if taken.leaves_of[v] & {*shared}]
    some = [use for use in uses if {*_variables(use)} & {*concerned}]

    def moved(*values: Any) -> list[Any]:
        at = list(leaves)
        for leaf, value in zip(shared, values, strict=True):
            at[leaf] = value
        found = dict(zip(taken.crossing, taken.values(jax.tree.leaves(loss), at)[0], strict=True))
        return [found[v] for v in concerned]

    pull = jax.vjp(moved, *(leaves[leaf] for leaf in shared))[1]

    def one(rows: list[Any]) -> jax.Array:
        total = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for v in concerned}
        for use, row in zip(some, rows, strict=True):
            for v, gradient in _gradients_of(prepared, use, *row):
                if v in total:
                    total[v] = total[v] + gradient.astype(v.aval.dtype)
        return jnp.sum(jnp.stack([_square(g) for g in pull([total[v] for v in concerned])]))

    size = 4.0 * sum(leaves[leaf].size for leaf in shared)
    return map_rows(one, [_rows(use, traffic) for use in some], size, budget)


def _gradients_of(prepared: Prepared, use: Use, operands: Any, slopes: Any) -> list[Any]:
    """One example's gradients of what is used: pairs (variable, gradient)."""
    if isinstance(use, Linear):
        return [
            pair
            for site, o, g in zip(use.sites, operands, slopes, strict=True)
            for pair in zip([use.variable], local_gradient(prepared, site, o, g), strict=True)
        ]
    variables = _variables(use)
    return [*zip(variables, local_gradient(prepared, use.site, operands, slopes), strict=True)]


def _variables(use: Use) -> tuple[Any, ...]:
    return use.variables if isinstance(use, Other) else (use.variable,)


def _rows(use: Use, traffic: Traffic) -> Any:
    if isinstance(use, Linear):
        sites = use.sites
        return [traffic.operands[s] for s in sites], [traffic.slopes[s] for s in sites]
    return traffic.operands[use.site], traffic.slopes[use.site]


def _bytes(use: Use) -> float:
    return 4.0 * sum(v.aval.size for v in _variables(use))


def _square(a: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(a.astype(wide(a.dtype))))
