"""The dense matrix and its eigenvalues, for small models."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.influence.convergence import refuse_indefinite
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System, check_positive
from jaxinf.influence.passes import in_chunks

_COLUMNS = 64  # products formed at a time


def exact(*, max_parameters: int = 10_000) -> Solver:
    """Form the P × P matrix, one pass for every 64 columns, and solve by its eigenvalues.

    Args:
        max_parameters: refuse larger models; the matrix takes P² numbers and P³ operations.

    Returns:
        A `Solver`.

    Raises:
        InputError: when solving, for a larger model, or a matrix that is not positive definite to
            the precision of its dtype.

    Example:
        >>> exact().name
        'exact'
    """
    check_positive(max_parameters, "max_parameters")

    def setup(system: System) -> Callable[[Vectors], Solution]:
        size = system.size
        if size > max_parameters:
            raise InputError(
                f"the model has {size:,} parameters and the exact solver takes {max_parameters:,}: "
                "use solver='cg', or raise max_parameters"
            )
        matrix = in_chunks(system.product, _COLUMNS, jnp.eye(size, dtype=system.dtype))
        values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
        floor = 4 * size * jnp.finfo(values.dtype).eps * values[-1]
        refuse_indefinite(jnp.where(values > floor, jnp.nan, values), system.damping)

        def solve(right_sides: Vectors) -> Solution:
            with jax.default_matmul_precision("highest"):
                solution = (right_sides @ vectors / values[None]) @ vectors.T
            passes = jnp.full(right_sides.shape[0], -(-size // _COLUMNS), right_sides.dtype)
            return Solution(solution, system.residual(solution, right_sides), passes)

        return solve

    return Solver(setup, "exact")
