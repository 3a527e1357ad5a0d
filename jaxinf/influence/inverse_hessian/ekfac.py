"""EK-FAC: the Fisher matrix of each linear layer, diagonal in a Kronecker-factored eigenbasis."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.layers import Layer, Traffic, find_layers, traffic
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System
from jaxinf.influence.vectors import to_matrix, to_tree
from jaxinf.typing import Batch, Params


class Basis(NamedTuple):
    """Of one layer: what enters in eigenvectors [I, I], the slopes [O, O], eigenvalues [I, O]."""

    entering: jax.Array
    slopes: jax.Array
    values: jax.Array


def ekfac() -> Solver:
    """Invert the Fisher matrix approximately, layer by layer, with three passes in all.

    For the `Dense`, `DenseGeneral` (so attention's projections) and `Conv` layers of flax.linen
    models, each with its bias: the gradient is rotated by the eigenvectors of the second moments
    of the layer's inputs and of its output slopes, and divided by the mean squares of the
    training gradients in that basis, plus the damping. Every other parameter is divided by its
    own mean square. It does not depend on the number of queries, and does not iterate.

    The residual against the whole Fisher matrix is reported; it is an approximation's, and is
    not warned of.

    Returns:
        A `Solver`, for `curvature="fisher"`.

    Raises:
        InputError: when solving, for a loss that calls no such layer, no damping, or a penalty.

    Example:
        >>> ekfac().name
        'ekfac'

    Reference: George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored
    Eigenbasis, NeurIPS 2018; for influence, Grosse et al., arXiv 2308.03296, 2023.
    """

    def setup(system: System) -> Callable[[Vectors], Solution]:
        _check(system)
        layers = find_layers(system.measure, system.params, next(iter(system.rows))[0])
        if not layers:
            raise InputError(
                "ekfac saw no Dense, DenseGeneral or Conv layer of flax.linen in the loss: hand "
                "over the loss of such a model, not itself compiled, or use solver='cg'"
            )
        bases, diagonal = eigenbases(system, layers), system.fisher_diagonal()

        def solve(right_sides: Vectors) -> Solution:
            solution = _divide(layers, bases, diagonal, system, right_sides)
            residual = system.residual(solution, right_sides)
            return Solution(solution, residual, jnp.full_like(residual, 3))

        return solve

    return Solver(setup, "ekfac", needs="fisher")


def eigenbases(system: System, layers: list[Layer]) -> list[Basis]:
    """Two passes over the training set: second moments, then mean squares in their basis."""
    moments = system.rows.total(
        lambda batch, mask: _moments(tuple(layers), system.measure, system.params, batch, mask)
    )
    rotations = [tuple(jnp.linalg.eigh(moment)[1] for moment in pair) for pair in moments]
    squares = system.rows.total(
        lambda batch, mask: _squares(
            tuple(layers), system.measure, system.params, batch, mask, rotations
        )
    )
    pairs = zip(rotations, squares, strict=True)
    return [Basis(left, right, total / system.rows.count) for (left, right), total in pairs]


@partial(jax.jit, static_argnums=0)
def _moments(
    layers: tuple[Layer, ...], measured: Partial, params: Params, batch: Batch, mask: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    def second(a: jax.Array) -> jax.Array:
        wide = a.astype(jnp.promote_types(a.dtype, jnp.float32))
        return jnp.einsum("bti,btj->ij", wide * mask[:, None, None], wide, precision="highest")

    passed = traffic(measured, params, batch, list(layers))
    return [(second(part.entering), second(part.slopes)) for part in passed]


@partial(jax.jit, static_argnums=0)
def _squares(
    layers: tuple[Layer, ...],
    measured: Partial,
    params: Params,
    batch: Batch,
    mask: jax.Array,
    rotations: list[tuple[jax.Array, ...]],
) -> list[jax.Array]:
    passed = traffic(measured, params, batch, list(layers))
    return [_rotated_squares(p, r, mask) for p, r in zip(passed, rotations, strict=True)]


def _rotated_squares(part: Traffic, rotation: tuple[jax.Array, ...], mask: jax.Array) -> jax.Array:
    """Σ_i mask_i (Uᵀ G_i V)², a per-example gradient at a time."""
    turned = [
        jnp.matmul(a.astype(u.dtype), u, precision="highest")
        for a, u in zip(part, rotation, strict=True)
    ]

    def add(total: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        entering, slopes, real = row
        gradient = jnp.matmul(entering.T, slopes, precision="highest")
        return total + jnp.square(gradient) * real, None

    zeros = jnp.zeros((turned[0].shape[2], turned[1].shape[2]), turned[0].dtype)
    return lax.scan(add, zeros, (*turned, mask))[0]


def _divide(
    layers: list[Layer],
    bases: list[Basis],
    diagonal: jax.Array,
    system: System,
    right_sides: Vectors,
) -> Vectors:
    leaves, structure = jax.tree.flatten(to_tree(right_sides, system.params))
    diagonals = jax.tree.leaves(to_tree(diagonal, system.params))
    solved = [a / (d + system.damping)[None] for a, d in zip(leaves, diagonals, strict=True)]
    for layer, basis in zip(layers, bases, strict=True):
        kernel = leaves[layer.kernel]
        count, width = kernel.shape[0], basis.slopes.shape[0]
        block = kernel.reshape(count, -1, width)
        if layer.bias is not None:
            below = leaves[layer.bias].reshape(count, 1, width)
            block = jnp.concatenate([block, below], axis=1)
        found = _rotate(basis, block, system.damping)
        if layer.bias is not None:
            solved[layer.bias] = found[:, -1].reshape(leaves[layer.bias].shape)
            found = found[:, :-1]
        solved[layer.kernel] = found.reshape(kernel.shape)
    return to_matrix(jax.tree.unflatten(structure, solved))


@jax.jit
def _rotate(basis: Basis, block: jax.Array, damping: jax.Array | float) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        inside = jnp.einsum("ia,kio,ob->kab", basis.entering, block, basis.slopes)
        inside = inside / (basis.values + damping)[None]
        return jnp.einsum("ia,kab,ob->kio", basis.entering, inside, basis.slopes)


def _check(system: System) -> None:
    if system.penalty is not None:
        raise InputError("ekfac takes no penalty: an L2 penalty ½ λ ‖θ‖² is the damping λ")
    if isinstance(system.damping, float | int) and not system.damping > 0:
        raise InputError("ekfac needs damping above 0: its eigenvalues may be 0")
