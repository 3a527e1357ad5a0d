"""The value of a transport problem at its potentials, and potentials that can be differentiated."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.transport import Problem, solve_transport, streamed_sweep


def dual_value(
    problem: Problem, f: jax.Array, g: jax.Array, columns: jax.Array
) -> Float[jax.Array, ""]:
    """The dual objective, which is the regularised cost where f and g solve the problem.

    Args:
        problem: masses and penalties.
        f: float[n].
        g: float[m].
        columns: float[m], column sums of the plan of f and g.

    Returns:
        <a, f> + <b, g> − ε (mass of the plan − 1), a soft marginal's price in place of the
        plain product. Rows may be split over devices.
    """
    if problem.tau_a == 1:
        rows = jnp.sum(problem.a * f)
    else:
        rows = _soft(problem.a, f, problem.tau_a, problem.epsilon)
    rows = problem.reduce(rows)
    if problem.tau_b == 1:
        second = jnp.sum(problem.b * g)
    else:
        second = _soft(problem.b, g, problem.tau_b, problem.epsilon)
    masses = problem.reduce(jnp.sum(problem.a)) * jnp.sum(problem.b)
    return rows + second - problem.epsilon * (jnp.sum(columns) - masses)


def _soft(mass: jax.Array, price: jax.Array, tau: float, epsilon: jax.Array) -> jax.Array:
    # the conjugate of ρ KL(· | mass); at τ = 0 the marginal is free and has no price
    if tau == 0:
        return jnp.zeros((), price.dtype)
    rho = epsilon * tau / (1 - tau)
    return jnp.sum(mass * rho * -jnp.expm1(-price / rho))


def differentiable_potentials(
    geometry: ClassWiseGeometry, problem: Problem, **options: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solve, and let derivatives pass by the implicit function theorem.

    The unknown is g alone (f is a function of it): at the solution the column sums of the plan
    are what they should be, and the derivative of that condition in g is symmetric and positive.
    One Newton step from the solution, whose size is zero, carries the derivatives: conjugate
    gradients solve for it, and nothing of the iteration is stored. First derivatives of the
    potentials are exact, and derivatives of the distance, which is flat in g, up to the third.

    Args:
        geometry: streamed.
        problem: masses and penalties; no split rows.
        options: `threshold` and `max_iterations` of `solve_transport`.

    Returns:
        f [n], g [m] and the column sums [m].
    """
    sweep = streamed_sweep(geometry, problem)
    zeros = jnp.zeros_like(problem.a)
    balanced = problem.tau_b == 1 and problem.tau_a == 1

    def condition(g: jax.Array) -> jax.Array:
        columns = sweep(zeros, g, 1.0)[1]
        return columns - problem.target(g)

    # balanced potentials are free up to a constant, and columns of no mass have none: keep to the
    # vectors that are zero there and sum to zero
    has_mass = problem.b > 0
    count = jnp.sum(has_mass)

    def flat(v: jax.Array) -> jax.Array:
        v = jnp.where(has_mass, v, 0)
        return jnp.where(has_mass, v - jnp.sum(v) / count, 0) if balanced else v

    g = jnp.zeros_like(problem.b)
    if problem.tau_b > 0:
        fixed = jax.lax.stop_gradient((geometry, problem.a, problem.b, problem.epsilon))
        g = solve_transport(
            *fixed[:3], epsilon=fixed[3], tau_a=problem.tau_a, tau_b=problem.tau_b, **options
        ).g
        # what is left out has a slope of its own: on a singular system conjugate gradients blow
        # up round-off, which is all that they are given where the potentials are well solved
        of_rest = 1 / (count * fixed[3])

        def slope(v: jax.Array) -> jax.Array:
            inside = flat(v)
            return flat(jax.jvp(condition, (g,), (inside,))[1]) + of_rest * (v - inside)

        missing = condition(g)
        step, _ = jax.scipy.sparse.linalg.cg(
            slope, flat(missing - jax.lax.stop_gradient(missing)), tol=1e-6, maxiter=500
        )
        g = g - flat(step)
    f, columns = sweep(zeros, g, 1.0)
    return f, g, columns
