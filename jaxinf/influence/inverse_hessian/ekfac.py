"""EK-FAC: the Fisher matrix of each linear layer, diagonal in a Kronecker-factored eigenbasis."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from jaxinf.influence.inverse_hessian.kronecker import Basis, factored_setup, total_moments
from jaxinf.influence.inverse_hessian.layers import Layer, Traffic, traffic
from jaxinf.influence.inverse_hessian.system import Solver, System
from jaxinf.typing import Batch, Params


def ekfac(*, with_residual: bool = True) -> Solver:
    """Invert the Fisher matrix approximately, layer by layer, with three passes in all.

    For the `Dense`, `DenseGeneral` (so attention's projections) and `Conv` layers of flax.linen
    models, each with its bias: the gradient is rotated by the eigenvectors of the second moments
    of the layer's inputs and of its output slopes, and divided by the mean squares of the
    training gradients in that basis, plus the damping. Every other parameter is divided by its
    own mean square. It does not depend on the number of queries, and does not iterate.

    The residual against the whole Fisher matrix is reported; it is an approximation's, and is
    not warned of.

    Args:
        with_residual: measure it: about 4 forward passes over the training set per query, as much
            as scoring by forward mode costs. Otherwise it is NaN; solutions are the same.

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
    setup = factored_setup("ekfac", eigenbases, 3, with_residual)
    return Solver(setup, "ekfac", needs="fisher")


def eigenbases(system: System, layers: list[Layer]) -> list[Basis]:
    """Two passes over the training set: second moments, then mean squares in their basis."""
    rotations = [
        tuple(jnp.linalg.eigh(moment)[1] for moment in (each.entering, each.slopes))
        for each in total_moments(system, layers)
    ]
    squares = system.rows.total(
        lambda batch, mask: _squares(
            tuple(layers), system.measure, system.params, batch, mask, rotations
        )
    )
    pairs = zip(rotations, squares, strict=True)
    return [Basis(left, right, total / system.rows.count) for (left, right), total in pairs]


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
