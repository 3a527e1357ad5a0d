"""Conjugate gradients, for K right sides at once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxinf.influence.convergence import refuse_indefinite
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System, check_positive
from jaxinf.influence.passes import iterate
from jaxinf.influence.vectors import row_dots, row_norms


class _State(NamedTuple):
    solution: Vectors
    residual: Vectors
    search: Vectors
    product: Float[jax.Array, " K"]  # residual · preconditioned residual
    going: Bool[jax.Array, " K"]
    iterations: Float[jax.Array, " K"]
    indefinite: Float[jax.Array, " K"]  # curvature that was not positive; NaN for none


def cg(*, tolerance: float = 1e-4, max_iterations: int = 200, precondition: bool = False) -> Solver:
    """Preconditioned conjugate gradients; one pass over the training set per iteration.

    The K systems share every pass, each stops by itself, and none ends in silence: what is not
    converged is warned of with its residual. Under a caller's `jax.jit` nothing can warn, and the
    residual in the diagnostics says it.

    Args:
        tolerance: of the residual, relative to the right side. About 1e-5 is the least that
            float32 reaches.
        max_iterations: after which an `InfluenceWarning` says what residual is left.
        precondition: by the mean squared gradient of each parameter plus the damping: for
            parameters of very unlike scales. It costs one pass with per-example gradients; on
            networks whose layers are scaled alike it saves no iterations.

    Returns:
        A `Solver`.

    Raises:
        InputError: for settings that mean nothing; when solving, for a matrix with a curvature
            that is not positive (under tracing its solution is NaN).

    Example:
        >>> cg(tolerance=1e-6).name
        'cg(tolerance=1e-06, max_iterations=200)'
    """
    check_positive(tolerance, "tolerance")
    check_positive(max_iterations, "max_iterations")

    def setup(system: System) -> Callable[[Vectors], Solution]:
        inverse_diagonal = _inverse_diagonal(system, precondition)

        def going(state: _State) -> jax.Array:
            return jnp.any(state.going & (state.iterations < max_iterations))

        def solve(right_sides: Vectors) -> Solution:
            enough = tolerance * row_norms(right_sides)

            def step(state: _State) -> _State:
                return _advance(state, system.product(state.search), inverse_diagonal, enough)

            found = iterate(going, step, _start(right_sides, inverse_diagonal))
            refuse_indefinite(found.indefinite, system.damping)
            bad = jnp.isfinite(found.indefinite)[:, None]
            vectors = jnp.where(bad, jnp.nan, found.solution)
            return Solution(vectors, system.residual(vectors, right_sides), found.iterations)

        return solve

    settings = f"tolerance={tolerance:g}, max_iterations={max_iterations}"
    settings += ", precondition=True" if precondition else ""
    advice = f"raise max_iterations (now {max_iterations}), damping or tolerance"
    # rounding moves the true residual a little off the recursion's
    return Solver(setup, f"cg({settings})", 2 * tolerance, advice)


@jax.jit
def _start(right_sides: Vectors, inverse_diagonal: Float[jax.Array, " P"]) -> _State:
    search = right_sides * inverse_diagonal[None]
    count = right_sides.shape[0]
    return _State(
        jnp.zeros_like(right_sides),
        right_sides,
        search,
        row_dots(right_sides, search),
        row_norms(right_sides) > 0,
        jnp.zeros(count, right_sides.dtype),
        jnp.full(count, jnp.nan, right_sides.dtype),
    )


@jax.jit
def _advance(
    state: _State,
    image: Vectors,
    inverse_diagonal: Float[jax.Array, " P"],
    enough: Float[jax.Array, " K"],
) -> _State:
    curvature = row_dots(state.search, image)
    resolved = 8 * jnp.finfo(image.dtype).eps * row_norms(state.search) * row_norms(image)
    # a curvature within rounding of zero: singular before the first step, else as far as it goes
    flat = jnp.abs(curvature) <= resolved
    fresh = state.iterations == 0
    negative = state.going & ((curvature < -resolved) | (flat & fresh))
    moving = state.going & ~flat & ~negative
    rate = jnp.where(moving, state.product / jnp.where(moving, curvature, 1), 0)[:, None]
    solution = state.solution + rate * state.search
    residual = state.residual - rate * image
    conditioned = residual * inverse_diagonal[None]
    product = row_dots(residual, conditioned)
    turn = jnp.where(moving, product / jnp.where(moving, state.product, 1), 0)[:, None]
    squares = row_dots(state.search, state.search)
    quotient = curvature / jnp.where(squares > 0, squares, 1)
    return _State(
        solution,
        residual,
        jnp.where(moving[:, None], conditioned + turn * state.search, state.search),
        jnp.where(moving, product, state.product),
        moving & (row_norms(residual) > enough),
        state.iterations + state.going,
        jnp.where(negative, quotient, state.indefinite),
    )


def _inverse_diagonal(system: System, precondition: bool) -> jax.Array:
    if not precondition:
        return jnp.ones(system.size, system.dtype)
    diagonal = system.fisher_diagonal()
    mean = jnp.mean(diagonal)
    # parameters that no gradient moves keep a scale of their own
    floor = jnp.where(mean > 0, 1e-3 * mean, 1)
    return 1 / (diagonal + system.damping + floor)
