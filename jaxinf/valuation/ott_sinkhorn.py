"""The balanced problem solved by ott's own Sinkhorn, for what else there is to compare with."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.transport import Problem, Transport, two_pass_sweep


def solve_by_ott(
    geometry: Geometry,
    a: Float[jax.Array, " n"],
    b: Float[jax.Array, " m"],
    *,
    epsilon: float | jax.Array,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    init: Float[jax.Array, " m"] | None = None,
) -> Transport:
    """`solve_transport` of a balanced problem, by `ott.solvers.linear.sinkhorn.Sinkhorn`.

    Two readings of the cost per iteration, where `solve_transport` takes one, and the error is
    looked at every ten; the solution is the same to the threshold.

    Args:
        geometry: any ott geometry. A `ClassWiseGeometry` is streamed.
        a: float[n] positive masses, a sum of one.
        b: float[m] likewise.
        epsilon: strength of the entropic term, in the units of the cost.
        threshold: marginal error at which to stop.
        max_iterations: where to give up; not traced.
        init: float[m], g to start from (default 0).

    Returns:
        `Transport`, whose potentials stand beside the masses as everywhere here: ott's less
        ε log a and ε log b.

    Example:
        >>> geometry = Geometry(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> half = jnp.array([0.5, 0.5])
        >>> found = solve_by_ott(geometry, half, half, epsilon=0.1)
        >>> bool(found.converged), bool(found.marginal_error < 1e-3)
        (True, True)
    """
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    problem = Problem(a, b, jnp.asarray(epsilon, geometry.dtype))
    sweep = two_pass_sweep(geometry, problem)
    # ott renews g from f first: start from the f that belongs to g
    g = jnp.zeros_like(b) if init is None else init
    f, _ = sweep(jnp.zeros_like(a), g, 1.0)
    shift_f, shift_g = problem.epsilon * jnp.log(a), problem.epsilon * jnp.log(b)
    solver = Sinkhorn(threshold=threshold, max_iterations=max_iterations)
    with jax.numpy_rank_promotion("allow"):
        found = solver(
            LinearProblem(_with_epsilon(geometry, problem.epsilon), a, b),
            init=(f + shift_f, g + shift_g),
        )
    g = cast(jax.Array, found.g) - shift_g
    # rows exact, as of `solve_transport`, so that the columns tell the whole error
    f, columns = sweep(f, g, 1.0)
    error = problem.error(g, columns)
    return Transport(f, g, error, jnp.asarray(found.n_iters), error <= threshold, columns)


def _with_epsilon(geometry: Geometry, epsilon: Any) -> Geometry:
    if isinstance(geometry, ClassWiseGeometry):
        children, aux = geometry.tree_flatten()
        return type(geometry).tree_unflatten(aux, [*children[:-1], epsilon])
    return Geometry(geometry.cost_matrix, epsilon=epsilon)
