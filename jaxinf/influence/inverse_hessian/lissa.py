"""LiSSA: the Neumann series of the inverse, a block of training examples at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System, check_positive
from jaxinf.influence.passes import is_traced
from jaxinf.influence.vectors import row_dots, row_norms

_POWER_STEPS = 10
_SAFETY = 2.0  # one block's largest eigenvalue may exceed that of the mean


def lissa(*, scale: float | None = None, depth: int = 500, tolerance: float = 0.1) -> Solver:
    """`u ← g + (I − A_b / scale) u` over the blocks b in turn, `depth` of them; then `u / scale`.

    Each step reads one block only, so a few hundred steps may cost less than ten passes. It
    stops at the noise of the blocks: the residual on the whole set is computed and reported.

    Args:
        scale: at least the largest eigenvalue of any block's matrix. None: twice the largest of
            the mean, found by ten passes of power iteration.
        depth: how many blocks are used; those of a small set, several times.
        tolerance: an `InfluenceWarning` says so when the relative residual is larger.

    Returns:
        A `Solver`.

    Raises:
        InputError: for settings that mean nothing; when solving, for a series that diverges, as
            it does where the matrix has clearly negative eigenvalues. Few steps, or eigenvalues
            just below 0, leave it finite with a large residual, which is warned of. Under tracing
            the residual alone says either.

    Example:
        >>> lissa(scale=10.0).name
        'lissa(scale=10, depth=500)'

    Reference: Agarwal, Bullins and Hazan, JMLR 2017; Koh and Liang, ICML 2017, section 3.
    """
    for value, name in ((scale, "scale"), (depth, "depth"), (tolerance, "tolerance")):
        if value is not None:
            check_positive(value, name)

    def setup(system: System) -> Callable[[Vectors], Solution]:
        by = scale if scale is not None else _SAFETY * largest_eigenvalue(system)

        def solve(right_sides: Vectors) -> Solution:
            solution = right_sides
            for _, product in zip(range(depth), system.block_products(), strict=False):
                solution = _advance(solution, right_sides, product(solution), by)
            solution = solution / by
            residual = system.residual(solution, right_sides)
            if not is_traced(residual) and not bool(jnp.all(residual < 1e3)):
                raise InputError(
                    f"LiSSA diverged (scale {float(jnp.asarray(by)):.3g}): raise its scale above "
                    "the largest eigenvalue, or raise damping if the matrix has negative ones"
                )
            passes = depth / system.rows.num_blocks
            return Solution(solution, residual, jnp.full_like(residual, passes))

        return solve

    settings = f"depth={depth}" if scale is None else f"scale={scale:g}, depth={depth}"
    advice = "raise depth, damping or the batch size, or use solver='cg'"
    return Solver(setup, f"lissa({settings})", tolerance, advice)


def largest_eigenvalue(system: System) -> jax.Array:
    """Largest eigenvalue in magnitude, by ten steps of power iteration from a random vector."""
    vectors = _unit(jax.random.normal(jax.random.key(0), (1, system.size), system.dtype))
    quotient = jnp.zeros((), system.dtype)
    for _ in range(_POWER_STEPS):
        image = system.product(vectors)
        quotient = jnp.abs(row_dots(vectors, image))[0]
        vectors = _unit(image)
    return quotient


@jax.jit
def _advance(
    solution: Vectors, right_sides: Vectors, image: Vectors, scale: jax.Array | float
) -> Vectors:
    return right_sides + solution - image / scale


def _unit(vectors: Vectors) -> Vectors:
    norms = row_norms(vectors)[:, None]
    return vectors / jnp.where(norms > 0, norms, 1)
