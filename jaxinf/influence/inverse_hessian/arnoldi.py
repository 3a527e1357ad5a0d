"""A low-rank inverse from a Krylov space, shared by all right sides."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.influence.convergence import refuse_indefinite
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System, check_positive
from jaxinf.influence.passes import is_traced


def arnoldi(
    *,
    rank: int = 50,
    max_iterations: int = 100,
    tolerance: float = 0.1,
    key: jax.Array | None = None,
) -> Solver:
    """Invert the leading eigenpairs of a Krylov space; its cost does not grow with the queries.

    The matrix is symmetric, so Arnoldi's recursion is Lanczos's; the basis is orthogonalised in
    full. Outside the leading eigenvectors the curvature is taken for zero: those components are
    divided by the damping, or dropped where there is none.

    Args:
        rank: leading eigenpairs that are kept. Memory: `max_iterations` vectors.
        max_iterations: passes over the training set.
        tolerance: an `InfluenceWarning` says so when the relative residual is larger; 1 or more
            where truncation is what is wanted.
        key: of the random start; default `jax.random.key(0)`.

    Returns:
        A `Solver`.

    Raises:
        InputError: for settings that mean nothing; when solving, for a clearly negative
            eigenvalue.

    Example:
        >>> arnoldi(rank=10).name
        'arnoldi(rank=10, max_iterations=100)'

    Reference: Schioppa et al., Scaling Up Influence Functions, AAAI 2022.
    """
    check_positive(rank, "rank")
    check_positive(max_iterations, "max_iterations")
    check_positive(tolerance, "tolerance")

    def setup(system: System) -> Callable[[Vectors], Solution]:
        seed = jax.random.key(0) if key is None else key
        basis, small = lanczos(system, min(max_iterations, system.size), seed)
        values, mixing = jnp.linalg.eigh(small)
        # what is dropped is not looked at; a matrix that is indefinite shows in its lowest values
        clearly = -1e-3 * jnp.abs(values).max()
        refuse_indefinite(jnp.where(values < clearly, values, jnp.nan), system.damping)
        with jax.default_matmul_precision("highest"):
            leading = mixing[:, ::-1][:, :rank].T @ basis

        def solve(right_sides: Vectors) -> Solution:
            solution = _invert(leading, values[::-1][:rank], right_sides, system.damping)
            residual = system.residual(solution, right_sides)
            return Solution(solution, residual, jnp.full_like(residual, basis.shape[0]))

        return solve

    advice = "raise rank and max_iterations, or damping, or use solver='cg'"
    name = f"arnoldi(rank={rank}, max_iterations={max_iterations})"
    return Solver(setup, name, tolerance, advice)


def lanczos(
    system: System, steps: int, key: jax.Array
) -> tuple[Float[jax.Array, "m P"], Float[jax.Array, "m m"]]:
    """An orthonormal Krylov basis, and the matrix within it (tridiagonal), damping included.

    It stops early where the space is exhausted.
    """
    dtype = system.dtype
    vector = jax.random.normal(key, (system.size,), dtype)
    basis = jnp.zeros((steps, system.size), dtype).at[0].set(vector / jnp.linalg.norm(vector))
    diagonal, beside = [], []
    for step in range(steps):
        along, basis, norm, exhausted = _extend(system.product(basis[step][None])[0], basis, step)
        diagonal.append(along)
        if step + 1 == steps or (not is_traced(exhausted) and bool(exhausted)):
            break
        beside.append(norm)
    off = jnp.stack(beside) if beside else jnp.zeros(0, dtype)
    small = jnp.diag(jnp.stack(diagonal)) + jnp.diag(off, 1) + jnp.diag(off, -1)
    return basis[: len(diagonal)], small


@jax.jit
def _extend(
    image: jax.Array, basis: Float[jax.Array, "m P"], step: jax.Array | int
) -> tuple[jax.Array, Float[jax.Array, "m P"], jax.Array, jax.Array]:
    """The next basis vector; the rows that are not there yet are zero."""
    with jax.default_matmul_precision("highest"):
        along = basis @ image
        left = image - along @ basis
        left = left - (basis @ left) @ basis  # once is not enough in floating point
    norm = jnp.linalg.norm(left)
    exhausted = norm <= 1e2 * jnp.finfo(image.dtype).eps * jnp.linalg.norm(image)
    following = left / jnp.where(exhausted, 1, norm)
    return along[step], basis.at[step + 1].set(following, mode="drop"), norm, exhausted


@jax.jit
def _invert(
    leading: Vectors, values: jax.Array, right_sides: Vectors, damping: jax.Array | float
) -> Vectors:
    floor = 1e2 * jnp.finfo(values.dtype).eps * jnp.abs(values).max()
    inverse = jnp.where(values > floor, 1 / jnp.where(values > floor, values, 1), 0)
    with jax.default_matmul_precision("highest"):
        within = right_sides @ leading.T
        outside = right_sides - within @ leading
        rest = jnp.where(damping > 0, outside / jnp.where(damping > 0, damping, 1), 0)
        return (within * inverse[None]) @ leading + rest
