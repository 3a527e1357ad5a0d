"""Influence with the Fisher matrix from dot products of gradients alone, for `benchmarks.lds`.

Where every example that is asked about is at hand, the directions need not be formed: with K the
Gram matrix of the training examples' gradients and k_q a query's products with them,
`G (GᵀG/N + δ)⁻¹ g_q / N = (K + Nδ)⁻¹ k_q`, exactly (Woodbury). It takes a gradient of every
example, so it is not forward-only; the scores are those of the forward-only route.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.influence.inverse_hessian.system import System
from jaxinf.influence.inverse_hessian.woodbury import gram_matrix
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure
from jaxinf.influence.passes import training_rows


class Products(NamedTuple):
    """Dot products of gradients: of training examples [N, N], of queries with them [K, N]."""

    inside: jax.Array
    asked: jax.Array
    parameters: int


def gradient_products(
    loss: Any, params: Any, queries: Any, train: Any, *, measure: Measure, batch_size: int = 500
) -> Products:
    """Dot products of the gradients of the measure."""
    fine = scoring_loss(loss, None, "highest")
    measured = scoring_loss(as_measure(fine, measure), None, "highest")
    both = jax.tree.map(lambda a, b: np.concatenate([a, np.asarray(b)]), train, queries)
    rows = training_rows(Stream(ArraySource(both), batch_size), "gradient_products")
    products = gram_matrix(System(fine, measured, params, rows, "fisher", None, 0.0))
    count = len(jax.tree.leaves(train)[0])
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Products(products[:count, :count], products[count:, :count], size)


def influence_by_gram(products: Products, damping: float) -> np.ndarray:
    """Scores float[K, N] of `influence_function(solver="woodbury")`, with its signs and units.

    Damping is in units of the mean eigenvalue; the training examples are followed by the measure
    too, so that for margins the factor 1 − p of their loss is still to come.
    """
    inside, asked, size = products
    count = len(inside)
    shift = damping * jnp.trace(inside) / min(count, size)  # N times the absolute damping
    factor = jax.scipy.linalg.cho_factor(inside + shift * jnp.eye(count), lower=True)
    return np.asarray(jax.scipy.linalg.cho_solve(factor, asked.T).T)
