"""Both soft minima of a cost, over its columns and over its rows, from one exponential an entry.

A simultaneous update of both potentials needs

    over_columns_i = log Σ_j exp(v_j − c_ij/ε)      and      over_rows_j = log Σ_i exp(u_i − c_ij/ε)

Both are sums of one matrix, the plan P_ij = exp(u_i + v_j − c_ij/ε): the logarithm of its row sums
less u, and of its column sums less v. It is made a piece at a time, and no piece leaves the cache
before both sums have read it. Where potentials are so stale that a sum is beyond float32's range,
the plain way with its running maxima takes over.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.kernel import KernelGeometry

# of sums whose largest terms lie well within what float32 holds
_LEAST, _MOST = 1e-25, 1e25


def both_log_sums(
    geometry: Geometry,
    u: Float[jax.Array, " n"],
    v: Float[jax.Array, " m"],
    epsilon: Float[jax.Array, ""],
) -> tuple[Float[jax.Array, " n"], Float[jax.Array, " m"]]:
    """Log-sum-exp of `v − c/ε` over the columns, and of `u − c/ε` over the rows.

    Args:
        geometry: a `KernelGeometry` is read by its fused kernel, a `ClassWiseGeometry` tile by
            tile, another by its cost matrix.
        u: float[n]; −inf leaves a row out: of the second sum, and its own is 0.
        v: float[m]; −inf leaves a column out, the same way.
        epsilon: what the cost is divided by.

    Returns:
        float[n] and float[m].

    Example:
        >>> geometry = Geometry(jnp.array([[0.0, 1.0], [2.0, 0.0]]))
        >>> sums = both_log_sums(geometry, jnp.zeros(2), jnp.zeros(2), jnp.array(1.0))
        >>> [[round(each, 3) for each in side.tolist()] for side in sums]
        [[0.313, 0.127], [0.127, 0.313]]
    """
    has_row, has_column = jnp.isfinite(u), jnp.isfinite(v)
    finite_u = jnp.where(has_row, u, 0)

    def tile(columns: jax.Array, cost: jax.Array, u: jax.Array, mass: jax.Array) -> Any:
        return _sums_of_plan(columns, cost, u, v, mass, epsilon)

    start = jnp.zeros_like(v)
    mass = has_row.astype(v.dtype)
    if isinstance(geometry, KernelGeometry):
        rows, columns = geometry.plan_sums(u, v, epsilon)
    elif isinstance(geometry, ClassWiseGeometry):
        columns, rows = geometry.over_tiles(tile, start, (finite_u, 0.0), (mass, 0.0))
    else:
        columns, rows = tile(start, jnp.asarray(geometry.cost_matrix), finite_u, mass)
    in_range = lambda sums, used: jnp.all(~used | ((sums > _LEAST) & (sums < _MOST)))
    over_columns, over_rows = jax.lax.cond(
        in_range(rows, has_row) & in_range(columns, has_column),
        lambda: (jnp.log(rows) - finite_u, jnp.log(columns) - v),
        lambda: two_log_sums(geometry, u, v, epsilon),
    )
    return jnp.where(has_row, over_columns, 0), jnp.where(has_column, over_rows, 0)


def two_log_sums(
    geometry: Geometry,
    u: Float[jax.Array, " n"],
    v: Float[jax.Array, " m"],
    epsilon: Float[jax.Array, ""],
) -> tuple[Float[jax.Array, " n"], Float[jax.Array, " m"]]:
    """The same by two reductions of the geometry's own, each with its running maxima.

    Rows and columns that are left out have sums all the same.
    """
    apply: Any = geometry.apply_lse_kernel
    over_columns = apply(jnp.zeros_like(u), epsilon * v, epsilon, axis=1)[0] / epsilon
    over_rows = apply(epsilon * u, jnp.zeros_like(v), epsilon, axis=0)[0] / epsilon
    return over_columns, over_rows


def _sums_of_plan(
    columns: jax.Array,
    cost: jax.Array,
    u: jax.Array,
    v: jax.Array,
    mass: jax.Array,
    epsilon: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Add the plan's column sums to `columns`, and give its row sums, by pieces of some rows."""
    n, m = cost.shape
    size = min(n, max(8, piece_entries() // max(m, 1)))
    # a CPU sums rows faster as a product; elsewhere the sum is fused with the exponential
    ones = jnp.ones_like(v)
    of_rows = (lambda plan: plan @ ones) if _on_cpu() else (lambda plan: jnp.sum(plan, axis=1))

    def piece(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        columns, rows = sums
        # the last piece reaches back over rows that the one before has counted
        first = jnp.minimum(i * size, n - size)
        cut = lambda array: jax.lax.dynamic_slice_in_dim(array, first, size)
        plan = jnp.exp(cut(u)[:, None] + v[None, :] - cut(cost) / epsilon)
        counts = jnp.where(first + jnp.arange(size) >= i * size, cut(mass), 0)
        rows = jax.lax.dynamic_update_slice_in_dim(rows, of_rows(plan), first, axis=0)
        return columns + counts @ plan, rows

    return jax.lax.fori_loop(0, -(-n // size), piece, (columns, jnp.zeros_like(u)))


def piece_entries() -> int:
    """How many entries of the plan are made at a time: 1 MiB of float32 on a CPU, for its cache."""
    return 1 << (18 if _on_cpu() else 26)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
