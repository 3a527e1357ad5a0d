"""Newton's method for smooth, strictly convex functions, to a stated gradient norm.

The steps are judged by the gradient's norm and not by the function's value: near the minimum the
value stops changing in the last digit long before the gradient does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float, Int

from jaxinf.errors import InputError, x64_enabled

Vector: TypeAlias = Float[jax.Array, " P"]
Gradient: TypeAlias = Callable[[Vector], Vector]

_HALVINGS = 10
_DECREASE = 1e-4


class Minimum(NamedTuple):
    """Where a search ended.

    Attributes:
        point: float[P].
        gradient_norm: Euclidean norm of the gradient there.
        num_steps: Newton steps taken.
    """

    point: Vector
    gradient_norm: Float[jax.Array, ""]
    num_steps: Int[jax.Array, ""]


class _Search(NamedTuple):
    point: jax.Array
    slope: jax.Array
    norm: jax.Array
    step: jax.Array
    stuck: jax.Array


def minimise(
    gradient: Gradient,
    direction: Callable[[Vector, Vector], Vector],
    start: Vector,
    *,
    tolerance: float | jax.Array,
    max_steps: int | jax.Array,
) -> Minimum:
    """Follow Newton directions until the gradient's norm is at most `tolerance`.

    At least one step is tried, since an example may be so well fitted that leaving it out moves
    the gradient by less than the tolerance. A step is halved until it shortens the gradient; the
    search ends when no halving does, which is where rounding sets in. Vmaps.

    Args:
        gradient: of the function, float[P] to float[P].
        direction: `direction(point, gradient) -> float[P]`, about minus the inverse Hessian times
            the gradient.
        start: float[P].
        tolerance: Euclidean norm of the gradient to reach.
        max_steps: most steps; the reached norm tells whether they were enough.

    Returns:
        `Minimum`.

    Example:
        >>> gradient = lambda x: 3 * (x - 2)
        >>> found = minimise(gradient, lambda x, g: -g / 3, jnp.zeros(1), tolerance=1e-6,
        ...     max_steps=9)
        >>> found.point.tolist(), int(found.num_steps)
        ([2.0], 1)
    """
    norm_of = lambda slope: jnp.sqrt(jnp.vdot(slope, slope, precision="highest"))

    def unfinished(search: _Search) -> jax.Array:
        reached = (search.norm <= tolerance) & (search.step > 0)
        return ~reached & ~search.stuck & (search.step < max_steps)

    def advance(search: _Search) -> _Search:
        way = direction(search.point, search.slope)

        def at(length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            point = search.point + length * way
            slope = gradient(point)
            return point, slope, norm_of(slope)

        def too_long(trial: Any) -> jax.Array:
            length, (_, _, norm) = trial
            shorter = norm <= (1 - _DECREASE * length) * search.norm
            return ~shorter & (length > 0.5**_HALVINGS)

        def halve(trial: Any) -> Any:
            length = trial[0] / 2
            return length, at(length)

        one = jnp.ones((), search.point.dtype)
        _, (point, slope, norm) = lax.while_loop(too_long, halve, (one, at(one)))
        better = norm < search.norm
        keep = lambda new, old: jnp.where(better, new, old)
        return _Search(
            keep(point, search.point),
            keep(slope, search.slope),
            keep(norm, search.norm),
            search.step + 1,
            ~better,
        )

    slope = gradient(start)
    found = lax.while_loop(
        unfinished,
        advance,
        _Search(start, slope, norm_of(slope), jnp.int32(0), jnp.zeros((), bool)),
    )
    return Minimum(found.point, found.norm, found.step)


def conjugate_gradients(gradient: Gradient) -> Callable[[Vector, Vector], Vector]:
    """Newton directions by conjugate gradients, from Hessian-vector products alone.

    The nearer the minimum, the more exactly they are solved for, so that convergence is faster
    than linear.
    """

    def direction(point: Vector, slope: Vector) -> Vector:
        _, hessian = jax.linearize(gradient, point)
        norm = jnp.sqrt(jnp.vdot(slope, slope, precision="highest"))
        tolerance: Any = jnp.minimum(0.1, jnp.sqrt(norm))
        return cg(hessian, -slope, tol=tolerance, maxiter=2 * point.size)[0]

    return direction


def inverse_hessian(gradient: Gradient, point: Vector, *, batch_size: int = 64) -> jax.Array:
    """The inverse Hessian as a matrix float[P, P]; NaN where the Hessian is not positive definite.

    Example:
        >>> inverse_hessian(lambda x: 4 * x, jnp.zeros(2)).tolist()
        [[0.25, 0.0], [0.0, 0.25]]
    """
    _, product = jax.linearize(gradient, point)
    basis = lambda i: jnp.zeros_like(point).at[i].set(1)
    columns = jnp.arange(point.size)
    size = min(batch_size, point.size)
    hessian = lax.map(lambda i: product(basis(i)), columns, batch_size=size)
    # rounding must not make it lopsided
    factor = jax.scipy.linalg.cho_factor((hessian + hessian.T) / 2)
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(point.size, dtype=point.dtype))


def default_tolerance(dtype: Any) -> float:
    """A gradient norm that the dtype can reach: 1e-10 in float64, 1e-6 below."""
    return 1e-10 if x64_enabled() and jnp.dtype(dtype) == jnp.float64 else 1e-6


def check_search(tolerance: float | None, max_steps: int) -> None:
    """Refuse a tolerance or a number of steps that no search can use.

    Raises:
        InputError: naming the option.
    """
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise InputError(f"tolerance is {tolerance}: a positive gradient norm")
    if max_steps < 1:
        raise InputError(f"max_steps is {max_steps}: at least 1")
