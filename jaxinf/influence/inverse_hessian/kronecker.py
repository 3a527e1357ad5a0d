"""Kronecker-factored curvature: the eigenbasis of each linear layer, and dividing in it.

K-FAC and EK-FAC share the basis, the eigenvectors of what enters a layer and of the loss's slopes
in what leaves it; they differ in the eigenvalues.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.curvature import Vectors
from jaxinf.influence.inverse_hessian.layers import Layer, find_layers, traffic
from jaxinf.influence.inverse_hessian.system import Solution, System
from jaxinf.influence.vectors import to_matrix, to_tree
from jaxinf.typing import Batch, Params


class Basis(NamedTuple):
    """Of one layer: what enters in eigenvectors [I, I], the slopes [O, O], eigenvalues [I, O]."""

    entering: jax.Array
    slopes: jax.Array
    values: jax.Array


class Moments(NamedTuple):
    """Of one layer: sums over examples and positions of the outer products, [I, I] and [O, O].

    Attributes:
        entering: of what enters.
        slopes: of the slopes in what leaves.
        positions: how many positions were summed over, examples times T.
    """

    entering: jax.Array
    slopes: jax.Array
    positions: jax.Array


Bases = Callable[[System, list[Layer]], list[Basis]]


def factored_setup(
    name: str, bases_of: Bases, passes: int, with_residual: bool = True
) -> Callable[[System], Callable[[Vectors], Solution]]:
    """The `setup` of a solver that divides in Kronecker-factored bases.

    Args:
        name: of the solver, for messages.
        bases_of: the basis of each layer, from passes over the training set.
        passes: how many, with that of the diagonal.
        with_residual: measure it; NaN otherwise.
    """

    def setup(system: System) -> Callable[[Vectors], Solution]:
        _check(system, name)
        layers = find_layers(system.measure, system.params, next(iter(system.rows))[0])
        if not layers:
            raise InputError(
                f"{name} saw no Dense, DenseGeneral or Conv layer of flax.linen in the loss: hand "
                "over the loss of such a model, not itself compiled, or use solver='cg'"
            )
        bases, diagonal = bases_of(system, layers), system.fisher_diagonal()

        def solve(right_sides: Vectors) -> Solution:
            solution = _divide(layers, bases, diagonal, system, right_sides)
            residual = jnp.full_like(right_sides[:, 0], jnp.nan)
            if with_residual:
                residual = system.residual(solution, right_sides)
            return Solution(solution, residual, jnp.full_like(residual, passes))

        return solve

    return setup


def total_moments(system: System, layers: list[Layer]) -> list[Moments]:
    """One pass over the training set."""
    return system.rows.total(
        lambda batch, mask: moments(tuple(layers), system.measure, system.params, batch, mask)
    )


@partial(jax.jit, static_argnums=0)
def moments(
    layers: tuple[Layer, ...], measured: Partial, params: Params, batch: Batch, mask: jax.Array
) -> list[Moments]:
    """Of every layer over one batch; rows whose mask is false do not count."""

    def second(a: jax.Array) -> jax.Array:
        wide = a.astype(jnp.promote_types(a.dtype, jnp.float32))
        return jnp.einsum("bti,btj->ij", wide * mask[:, None, None], wide, precision="highest")

    passed = traffic(measured, params, batch, list(layers))
    return [
        Moments(second(part.entering), second(part.slopes), jnp.sum(mask) * part.entering.shape[1])
        for part in passed
    ]


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


def _check(system: System, name: str) -> None:
    if system.penalty is not None:
        raise InputError(f"{name} takes no penalty: an L2 penalty ½ λ ‖θ‖² is the damping λ")
    if isinstance(system.damping, float | int) and not system.damping > 0:
        raise InputError(f"{name} needs damping above 0: its eigenvalues may be 0")
