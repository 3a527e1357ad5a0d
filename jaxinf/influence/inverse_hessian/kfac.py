"""K-FAC: the Fisher matrix of each linear layer as a Kronecker product of two second moments."""

import jax.numpy as jnp

from jaxinf.influence.inverse_hessian.kronecker import Basis, factored_setup, total_moments
from jaxinf.influence.inverse_hessian.layers import Layer
from jaxinf.influence.inverse_hessian.system import Solver, System


def kfac() -> Solver:
    """Invert the Fisher matrix approximately, layer by layer, with two passes in all.

    As `ekfac`, in the same eigenbasis, with the eigenvalues of the Kronecker product itself:
    `Σ a aᵀ ⊗ Σ s sᵀ / (N · positions)`, for inputs a and slopes s of all positions. It takes
    inputs and slopes, and the positions of one example, to be independent; `ekfac` measures the
    mean squares instead, for one pass more, and is never further from the Fisher matrix.

    Returns:
        A `Solver`, for `curvature="fisher"`. Damping is added to the eigenvalues of the product.

    Raises:
        InputError: when solving, for a loss that calls no such layer, no damping, or a penalty.

    Example:
        >>> kfac().name
        'kfac'

    Reference: Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate
    Curvature, ICML 2015; convolutions as Grosse and Martens, ICML 2016.
    """
    return Solver(factored_setup("kfac", _eigenbases, 2), "kfac", needs="fisher")


def _eigenbases(system: System, layers: list[Layer]) -> list[Basis]:
    bases = []
    for each in total_moments(system, layers):
        entering, left = jnp.linalg.eigh(each.entering)
        slopes, right = jnp.linalg.eigh(each.slopes)
        # rounding can make the eigenvalues of a singular moment negative
        product = jnp.maximum(entering, 0)[:, None] * jnp.maximum(slopes, 0)[None, :]
        bases.append(Basis(left, right, product / (system.rows.count * each.positions)))
    return bases
