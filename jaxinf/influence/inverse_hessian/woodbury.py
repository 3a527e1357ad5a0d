"""The damped Fisher matrix inverted in the space of the examples, where there are fewer of them.

Gradients are the rows of G, N of them with P entries. By Woodbury's identity
`(GᵀG/N + δ)⁻¹ r = (r − Gᵀ (GGᵀ + Nδ)⁻¹ G r) / δ`, exactly, and the matrix is N × N.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.layers import Layer, find_layers, traffic
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System, check_positive
from jaxinf.influence.scorers import directional_derivatives, example_gradient
from jaxinf.influence.vectors import row_norms, to_tree, to_vector
from jaxinf.typing import Batch, Params

_AT_ONCE = 32  # vectors that go through the training set together
_MUCH_LARGER = 8


def woodbury(*, max_examples: int = 20_000) -> Solver:
    """Invert the Fisher matrix exactly through the N × N Gram matrix of the training gradients.

    For networks whose parameters outnumber their training examples: where conjugate gradients
    take some passes over the training set for every query, this takes two, after one Cholesky
    factorisation for all of them. The Gram matrix of `Dense`, `DenseGeneral` and `Conv` layers
    of flax.linen comes from what enters and leaves them; gradients of whole layers are formed
    only where that is cheaper, a block of examples at a time.

    Args:
        max_examples: refuse more; the Gram matrix takes N² numbers, its factor as many, and N³/3
            operations.

    Returns:
        A `Solver`, for `curvature="fisher"`.

    Raises:
        InputError: when solving, for more examples, no damping, or a penalty.

    Example:
        >>> woodbury().name
        'woodbury'

    Reference: Woodbury, Inverting Modified Matrices, 1950; for neural tangent kernels, Jacot et
    al., NeurIPS 2018.
    """
    check_positive(max_examples, "max_examples")

    def setup(system: System) -> Callable[[Vectors], Solution]:
        _check(system, max_examples)
        count = system.rows.count
        matrix = gram_matrix(system)
        shifted = matrix + count * system.damping * jnp.eye(count, dtype=matrix.dtype)
        factor = jax.scipy.linalg.cho_factor(shifted, lower=True)

        def solve(right_sides: Vectors) -> Solution:
            slopes = _slopes(system, right_sides)
            weights = jax.scipy.linalg.cho_solve(factor, slopes.T).T
            solution = (right_sides - _combine(system, weights)) / system.damping
            # a pass over the training set for it would cost as much as the solution did
            missed = slopes - jnp.matmul(weights, shifted, precision="highest")
            square = jnp.sum(jnp.matmul(missed, matrix, precision="highest") * missed, axis=1)
            size = row_norms(right_sides)
            residual = jnp.sqrt(jnp.maximum(square, 0)) / (count * system.damping)
            residual = residual / jnp.where(size > 0, size, 1)
            return Solution(solution, residual, jnp.full_like(residual, 2))

        return solve

    return Solver(
        setup,
        "woodbury",
        tolerance=1e-2,
        advice="raise the damping, which float32 cannot resolve, or use float64",
        needs="fisher",
    )


def gram_matrix(system: System) -> jax.Array:
    """Dot products of the training gradients of the measure with one another, float[N, N].

    What is held meanwhile is, per example and layer, its gradient or what enters and leaves it:
    that whose products are cheaper, unless it takes `_MUCH_LARGER` times as much memory.
    """
    rows = system.rows
    layers = tuple(find_layers(system.measure, system.params, next(iter(rows))[0]))
    factors = [_factors(layers, system.measure, system.params, *block) for block in rows]
    below = [[_dots(mine, theirs) for theirs in factors[: i + 1]] for i, mine in enumerate(factors)]
    full = [
        jnp.concatenate([*row, *(below[j][i].T for j in range(i + 1, len(below)))], axis=1)
        for i, row in enumerate(below)
    ]
    return jnp.concatenate(full)[: rows.count, : rows.count]


@partial(jax.jit, static_argnums=0)
def _factors(
    layers: tuple[Layer, ...], measured: Partial, params: Params, batch: Batch, mask: jax.Array
) -> list[Any]:
    """Per layer, entering and slopes, or the gradients [B, I·O]; then those of all other leaves."""
    found: list[Any] = []
    if layers:
        for part in traffic(measured, params, batch, list(layers)):
            entering, slopes = (_wide(a) for a in part)
            slopes = slopes * mask[:, None, None]
            (_, length, wide), out = entering.shape, slopes.shape[2]
            cheaper = length**2 * (wide + out) <= wide * out
            if cheaper or _MUCH_LARGER * length * (wide + out) <= wide * out:
                found.append((entering, slopes))
            else:
                whole = jnp.einsum("bti,bto->bio", entering, slopes, precision="highest")
                found.append(whole.reshape(len(whole), -1))
    seen = {place for layer in layers for place in (layer.kernel, layer.bias)}
    others = [i for i in range(len(jax.tree.leaves(params))) if i not in seen]
    if others:

        def rest(example: Batch) -> jax.Array:
            leaves = jax.tree.leaves(example_gradient(measured, params, example))
            return to_vector([leaves[i] for i in others])

        found.append(jax.vmap(rest)(batch) * mask[:, None])
    return found


def _wide(a: jax.Array) -> jax.Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


@jax.jit
def _dots(mine: list[Any], theirs: list[Any]) -> jax.Array:
    total: Any = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if isinstance(a, tuple):
            inside, outside = (_all_pairs(*pair) for pair in zip(a, b, strict=True))
            both = (inside * outside).reshape(*a[0].shape[:2], *b[0].shape[:2])
            total = total + jnp.sum(both, axis=(1, 3))
        else:
            total = total + jnp.matmul(a, b.T, precision="highest")
    return total


def _all_pairs(a: jax.Array, b: jax.Array) -> jax.Array:
    # as plain matrices: on a CPU the batched form of this product is several times slower
    flat = lambda c: c.reshape(-1, c.shape[2])
    return jnp.matmul(flat(a), flat(b).T, precision="highest")


def _slopes(system: System, vectors: Vectors) -> jax.Array:
    """G r: derivative of every training example's measure along each vector, float[K, N]."""
    directions = to_tree(vectors, system.params)
    parts = [_along(system.measure, system.params, directions, batch) for batch, _ in system.rows]
    return jnp.concatenate(parts, axis=1)[:, : system.rows.count]


@jax.jit
def _along(measured: Partial, params: Params, directions: Params, batch: Batch) -> jax.Array:
    return directional_derivatives(measured, params, directions, batch, _AT_ONCE)


def _combine(system: System, weights: jax.Array) -> Vectors:
    """Gᵀ c: training gradients of the measure, summed with each row of weights, float[K, P]."""
    total, start = jnp.zeros((len(weights), system.size), system.dtype), 0
    for batch, mask in system.rows:
        size = mask.shape[0]
        part = weights[:, start : start + size]
        padded = jnp.pad(part, ((0, 0), (0, size - part.shape[1])))
        total = total + _pull(system.measure, system.params, batch, padded)
        start += size
    return total


@jax.jit
def _pull(measured: Partial, params: Params, batch: Batch, weights: jax.Array) -> Vectors:
    values, pull = jax.vjp(lambda at: measured(at, batch), params)
    one = lambda row: to_vector(pull(row.astype(values.dtype))[0])
    return jax.lax.map(one, weights, batch_size=_AT_ONCE)


def _check(system: System, most: int) -> None:
    if system.penalty is not None:
        raise InputError("woodbury takes no penalty: an L2 penalty ½ λ ‖θ‖² is the damping λ")
    if isinstance(system.damping, float | int) and not system.damping > 0:
        raise InputError("woodbury needs damping above 0: there are more parameters than examples")
    if system.rows.count > most:
        raise InputError(
            f"{system.rows.count:,} training examples and the woodbury solver takes {most:,}: use "
            "solver='cg', or raise max_examples"
        )
