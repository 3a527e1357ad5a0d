"""Examples' gradients of one use, contracted with directions, without ever holding them all."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinf.influence.ghost.capture import (
    Prepared,
    Traffic,
    entering,
    leaving,
    local_gradient,
    map_rows,
    wide,
)
from jaxinf.influence.ghost.inline import bind, read
from jaxinf.influence.ghost.routes import cheapest, routes
from jaxinf.influence.ghost.trace import Trace
from jaxinf.influence.ghost.uses import Linear, Lookup, Other, Use


class Factors(NamedTuple):
    """K directions of a kernel, each the sum of R outer products.

    Attributes:
        entering: float[K, S, R, I].
        slopes: float[K, S, R, O].
    """

    entering: jax.Array
    slopes: jax.Array


def contract(
    prepared: Prepared, use: Use, traffic: Traffic, tangents: dict[Any, Any], budget: float
) -> jax.Array:
    """⟨an example's gradient of what is used, each direction⟩, float[B, K].

    Args:
        prepared: the trace.
        use: which use.
        traffic: of B examples.
        tangents: variable -> its derivatives along K directions, [K, *shape], or `Factors`.
        budget: bytes that may be made at once.
    """
    if isinstance(use, Linear):
        found = tangents[use.variable]
        if isinstance(found, Factors):
            return _factored(use, traffic, found, budget)
        return _linear(use, traffic, found, budget)
    if isinstance(use, Lookup):
        return _lookup(prepared.trace, use, traffic, tangents[use.variable], budget)
    return _other(prepared, use, traffic, [tangents[v] for v in use.variables], budget)


def _linear(use: Linear, traffic: Traffic, tangent: jax.Array, budget: float) -> jax.Array:
    x, g, kernels = entering(use, traffic), leaving(use, traffic), _kernels(use, tangent)
    count = kernels.shape[0]
    route = cheapest(routes(use.sizes, count), budget)
    dtype = wide(x.dtype)
    kernels = kernels.astype(x.dtype)

    def one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, g = row
        if route.name == "gradient":
            gradient = jnp.einsum("sti,sto->sio", x, g, preferred_element_type=dtype)
            return jnp.einsum("ksio,sio->k", kernels.astype(dtype), gradient)
        if route.name == "leaving":
            moved = jnp.einsum("sti,ksio->stko", x, kernels, preferred_element_type=dtype)
            return jnp.einsum("stko,sto->k", moved, g.astype(dtype))
        moved = jnp.einsum("sto,ksio->stki", g, kernels, preferred_element_type=dtype)
        return jnp.einsum("stki,sti->k", moved, x.astype(dtype))

    return map_rows(one, (x, g), route.bytes, budget)


def _factored(use: Linear, traffic: Traffic, factors: Factors, budget: float) -> jax.Array:
    x, g = entering(use, traffic), leaving(use, traffic)
    count, _, rank, _ = factors.entering.shape
    (route,) = routes(use.sizes, count, rank)
    dtype = wide(x.dtype)

    def one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, g = row
        alike = jnp.einsum("sti,ksri->stkr", x, factors.entering, preferred_element_type=dtype)
        slopes = jnp.einsum("sto,ksro->stkr", g, factors.slopes, preferred_element_type=dtype)
        return jnp.sum(alike * slopes, axis=(0, 1, 3))

    return map_rows(one, (x, g), route.bytes, budget)


def _kernels(use: Linear, tangent: jax.Array) -> jax.Array:
    return jax.vmap(use.forms[0].kernels)(tangent)


def _lookup(
    trace: Trace, use: Lookup, traffic: Traffic, tangent: jax.Array, budget: float
) -> jax.Array:
    eqn = trace.equation(trace.sites[use.site])
    (leaves,) = traffic.slopes[use.site]
    dtype = wide(leaves.dtype)

    def one(row: Any) -> jax.Array:
        indices, slopes = row
        values = dict(zip(eqn.invars[1:], indices, strict=True))
        rest = [read(values, v) for v in eqn.invars[1:]]
        looked_up = jax.vmap(lambda table: bind(eqn, [table, *rest])[0])(tangent)
        axes = slopes.ndim
        return jnp.tensordot(looked_up.astype(dtype), slopes.astype(dtype), axes)

    per_row = 4.0 * tangent.shape[0] * (leaves.size // leaves.shape[0])
    return map_rows(one, (traffic.operands[use.site], leaves), per_row, budget)


def _other(
    prepared: Prepared, use: Other, traffic: Traffic, tangents: Sequence[jax.Array], budget: float
) -> jax.Array:
    def one(row: Any) -> jax.Array:
        gradients = local_gradient(prepared, use.site, *row)
        pairs = zip(tangents, gradients, strict=True)
        dots = [
            jnp.tensordot(u.astype(wide(g.dtype)), g.astype(wide(g.dtype)), g.ndim)
            for u, g in pairs
        ]
        return jnp.sum(jnp.stack(dots), axis=0)

    per_row = 4.0 * sum(u.size // u.shape[0] for u in tangents)
    rows = (traffic.operands[use.site], traffic.slopes[use.site])
    return map_rows(one, rows, per_row, budget)
