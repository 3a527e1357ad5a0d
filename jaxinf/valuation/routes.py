"""The ways through one problem, with the same numbers: in memory, streamed, by devices, by ott."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.engine.mesh import DATA_AXIS, Mesh, data_parallel, num_shards, replicate, split_rows
from jaxinf.valuation.dual import dual_value
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.kernel import KernelGeometry
from jaxinf.valuation.ott_sinkhorn import solve_by_ott
from jaxinf.valuation.pose import Posed
from jaxinf.valuation.schedule import anneal
from jaxinf.valuation.transport import (
    Problem,
    Transport,
    solve_transport,
    streamed_sweep,
    two_pass_sweep,
)

Route = Literal["auto", "materialised", "streamed", "kernel", "ott"]


class Solved(NamedTuple):
    """A solution and its figures of merit.

    Attributes:
        transport: the potentials.
        value: the dual objective.
        gap: what the plan costs (with its entropic term) minus the dual objective.
    """

    transport: Transport
    value: Float[jax.Array, ""]
    gap: Float[jax.Array, ""]


# (masses a [n], g to start from [m]) -> Solved
Solve = Callable[[jax.Array, jax.Array], Solved]


class _Options(NamedTuple):
    """What a program is compiled for."""

    tau_b: float
    annealed: bool
    route: str
    axis_name: str | None
    # ott's loop has a fixed number of steps; the others read it from `_Numbers`
    max_iterations: int | None = None


class _Numbers(NamedTuple):
    """What it is given when it runs."""

    epsilon: jax.Array
    diameter: jax.Array
    threshold: float
    max_iterations: int


def choose_route(shape: tuple[int, int], itemsize: int, max_cost_bytes: int) -> Route:
    """In memory if the cost and its exponential fit, streamed if not.

    Example:
        >>> choose_route((5000, 5000), 4, 1 << 30)
        'materialised'
        >>> choose_route((200_000, 2000), 4, 1 << 30)
        'streamed'
    """
    return "materialised" if 2 * shape[0] * shape[1] * itemsize <= max_cost_bytes else "streamed"


def solver_for(
    posed: Posed,
    *,
    tau: float = 1.0,
    diameter: jax.Array | None = None,
    threshold: float,
    max_iterations: int,
    route: Route,
    max_cost_bytes: int,
    mesh: Mesh | None,
) -> Solve:
    """A function that solves the posed problem for given masses, compiled once for all of them.

    With a `diameter` it anneals from there instead of solving.
    """
    shards = 1 if mesh is None else num_shards(mesh)
    n, m = posed.geometry.shape
    by_ott = route == "ott"
    if route == "auto" or by_ott:
        size = posed.geometry.dtype.itemsize
        route = choose_route((-(-n // shards), m), size, max_cost_bytes)
    axis_name = None if mesh is None else DATA_AXIS
    limit = max_iterations if by_ott else None
    options = _Options(tau, diameter is not None, route, axis_name, limit)
    start = jnp.zeros_like(posed.epsilon) if diameter is None else diameter
    numbers = _Numbers(posed.epsilon, start, threshold, max_iterations)
    b = posed.valid.weights
    if mesh is None:
        whole: Geometry = posed.geometry
        if route == "kernel":
            children, aux = posed.geometry.tree_flatten()
            whole = KernelGeometry.tree_unflatten(aux, children)
        elif route == "materialised":
            whole = Geometry(_cost_matrix(posed.geometry))
        return lambda a, init: _solve_whole(whole, a, b, numbers, init, options)
    padding = -n % shards
    rows = jax.tree.map(
        lambda array: np.pad(np.asarray(array), [(0, padding)] + [(0, 0)] * (array.ndim - 1)),
        (posed.geometry.x, posed.geometry.x_labels),
    )
    x, labels = split_rows(rows, mesh)
    everywhere = replicate(
        (posed.geometry.y, posed.geometry.y_labels, posed.geometry.label_distances), mesh
    )
    geometry = posed.geometry
    scalars = replicate(
        (jnp.asarray(geometry.feature_weight), jnp.asarray(geometry.label_weight), numbers), mesh
    )
    of_rows, solver = _sharded_solver(mesh, options, geometry.p)
    rows = (x, labels)
    if route == "materialised":
        rows = (of_rows((everywhere, scalars), *rows),)

    def solve(a: jax.Array, init: jax.Array) -> Solved:
        masses = split_rows(np.pad(np.asarray(a), (0, padding)), mesh)
        state = (everywhere, scalars, *replicate((b, init), mesh))
        found: Solved = solver(state, masses, *rows)
        f = jnp.asarray(np.asarray(found.transport.f).reshape(-1)[:n])
        first = jax.tree.map(lambda array: jnp.asarray(np.asarray(array[0])), found)
        return first._replace(transport=first.transport._replace(f=f))

    return solve


@functools.lru_cache(maxsize=16)
def _sharded_solver(mesh: Mesh, options: _Options, p: float) -> tuple[Any, Any]:
    """The cost of each device's rows, and the solver; compiled once for each mesh and setting."""
    kind = KernelGeometry if options.route == "kernel" else ClassWiseGeometry
    held = options.route == "materialised"

    def geometry_of(state: Any, x: jax.Array, labels: jax.Array) -> ClassWiseGeometry:
        (y, y_labels, between), (feature_weight, label_weight, _) = state
        weights = {"feature_weight": feature_weight, "label_weight": label_weight}
        return kind(x, y, labels, y_labels, between, **weights, p=p)

    def cost_of(state: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return geometry_of(state, x, labels).cost_matrix

    def one_device(state: Any, a: jax.Array, *rows: jax.Array) -> Solved:
        everywhere, scalars, b, init = state
        geometry = Geometry(rows[0]) if held else geometry_of((everywhere, scalars), *rows)
        return _solve(geometry, a, b, scalars[-1], init, options)

    return (
        data_parallel(cost_of, mesh, num_row_args=2),
        data_parallel(one_device, mesh, num_row_args=2 if held else 3),
    )


def _solve(
    geometry: Geometry,
    a: jax.Array,
    b: jax.Array,
    numbers: _Numbers,
    init: jax.Array,
    options: _Options,
) -> Solved:
    problem = Problem(a, b, numbers.epsilon, 1.0, options.tau_b, options.axis_name)
    if options.annealed:
        soft = anneal(
            geometry,
            a,
            b,
            diameter=numbers.diameter,
            target=numbers.epsilon,
            axis_name=options.axis_name,
        )
        off = problem.reduce(jnp.sum(jnp.abs(soft.rows - a)))
        error = off + jnp.sum(jnp.abs(soft.columns - b))
        done = error <= numbers.threshold
        found = Transport(soft.f, soft.g, error, soft.num_steps, done, soft.columns)
        in_rows = problem.reduce(jnp.sum((soft.rows - a) * soft.f))
    elif options.max_iterations is not None:
        found = solve_by_ott(
            geometry, a, b, epsilon=numbers.epsilon, threshold=numbers.threshold,
            max_iterations=options.max_iterations, init=init,
        )  # fmt: skip
        in_rows = jnp.zeros((), geometry.dtype)
    else:
        found = solve_transport(
            geometry,
            a,
            b,
            epsilon=numbers.epsilon,
            tau_b=options.tau_b,
            threshold=numbers.threshold,
            max_iterations=numbers.max_iterations,
            init=init,
            axis_name=options.axis_name,
            make_sweep=two_pass_sweep if options.route == "kernel" else streamed_sweep,
        )
        in_rows = jnp.zeros((), geometry.dtype)
    value = dual_value(problem, found.f, found.g, found.columns)
    # the plan differs from a solution by what its sums miss
    gap = jnp.abs(in_rows + jnp.sum((found.columns - problem.target(found.g)) * found.g))
    return Solved(found, value, gap)


_solve_whole = jax.jit(_solve, static_argnames=("options",))
_cost_matrix = jax.jit(lambda geometry: geometry.cost_matrix)
