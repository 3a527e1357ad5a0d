"""Curvature of the training objective, as products with K vectors at once.

Nothing of the size P × P is formed. The K products share one primal pass, and one pass over the
training set serves them all.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.engine.batching import pad_rows
from jaxinf.influence.scorers import example_gradient, gradient_chunk
from jaxinf.influence.vectors import as_tangent, to_vector
from jaxinf.typing import Batch, Params

Vectors: TypeAlias = Float[jax.Array, "K P"]


class GaussNewton(NamedTuple):
    """A loss split in two, so that the model can be linearised and the loss kept.

    Attributes:
        outputs: `(params, batch) -> outputs`, one array with leading axis B, such as logits.
        loss: `(outputs, batch) -> float[B]`, convex in the outputs.
    """

    outputs: Callable[[Params, Batch], jax.Array]
    loss: Callable[[jax.Array, Batch], jax.Array]


Curvature: TypeAlias = Literal["hessian", "fisher"] | GaussNewton
"""`"hessian"` of the loss; `"fisher"`, the mean outer product of per-example gradients; or the
Gauss-Newton matrix. The last two have no negative eigenvalues."""


@jax.jit
def hessian_product(
    loss: Partial, params: Params, batch: Batch, mask: jax.Array, vectors: Vectors
) -> Vectors:
    """Σ_i mask_i ∇²ℓ_i applied to each vector: forward over reverse."""

    def total(at: Params) -> jax.Array:
        losses = loss(at, batch)
        return jnp.sum(losses * mask.astype(losses.dtype))

    def along(vector: jax.Array) -> jax.Array:
        return to_vector(jax.jvp(jax.grad(total), (params,), (as_tangent(vector, params),))[1])

    return jax.vmap(along)(vectors)


@jax.jit
def fisher_product(
    measure: Partial, params: Params, batch: Batch, mask: jax.Array, vectors: Vectors
) -> Vectors:
    """Σ_i mask_i g_i g_iᵀ applied to each vector, with no per-example gradient formed."""
    measured = lambda at: measure(at, batch)
    values, pull = jax.vjp(measured, params)

    def along(vector: jax.Array) -> jax.Array:
        slopes = jax.jvp(measured, (params,), (as_tangent(vector, params),))[1]
        return to_vector(pull((slopes * mask).astype(values.dtype))[0])

    return jax.vmap(along)(vectors)


@jax.jit
def gauss_newton_product(
    split: tuple[Partial, Partial],
    params: Params,
    batch: Batch,
    mask: jax.Array,
    vectors: Vectors,
) -> Vectors:
    """Σ_i mask_i J_iᵀ ∇²ℓ_i J_i applied to each vector, J of the outputs."""
    model, loss = split
    predict = lambda at: model(at, batch)
    outputs, pull = jax.vjp(predict, params)

    def total(outputs: jax.Array) -> jax.Array:
        losses = loss(outputs, batch)
        return jnp.sum(losses * mask.astype(losses.dtype))

    def along(vector: jax.Array) -> jax.Array:
        moved = jax.jvp(predict, (params,), (as_tangent(vector, params),))[1]
        return to_vector(pull(jax.jvp(jax.grad(total), (outputs,), (moved,))[1])[0])

    return jax.vmap(along)(vectors)


@jax.jit
def penalty_product(penalty: Partial, params: Params, vectors: Vectors) -> Vectors:
    """Hessian of a scalar function of the parameters, applied to each vector."""
    along = lambda vector: to_vector(
        jax.jvp(jax.grad(penalty), (params,), (as_tangent(vector, params),))[1]
    )
    return jax.vmap(along)(vectors)


@jax.jit
def gradient_squares(
    measure: Partial, params: Params, batch: Batch, mask: jax.Array
) -> Float[jax.Array, " P"]:
    """Σ_i mask_i g_i², entry by entry: the diagonal of the Fisher matrix, times N."""
    like = to_vector(params)

    def one(row: tuple[Batch, jax.Array]) -> Params:
        example, real = row
        # leaf by leaf: of gradients joined to one vector, XLA makes code that is 100 times slower
        gradient = example_gradient(measure, params, example)
        return jax.tree.map(lambda g: jnp.square(g.astype(like.dtype)) * real, gradient)

    rows = mask.shape[0]
    size = gradient_chunk(params, batch, None)
    if size >= rows:
        return to_vector(_summed(one, (batch, mask)))
    # sums of chunks, so that no more than a chunk of gradients is ever held
    parts = -(-rows // size)
    padded = pad_rows(batch, parts * size), jnp.pad(mask, (0, parts * size - rows))
    split = jax.tree.map(lambda a: a.reshape(parts, size, *a.shape[1:]), padded)
    add = lambda total, part: (jax.tree.map(jnp.add, total, _summed(one, part)), None)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, like.dtype), params)
    return to_vector(jax.lax.scan(add, zeros, split)[0])


def _summed(fn: Callable[[Any], Params], rows: Any) -> Params:
    try:
        found = jax.vmap(fn)(rows)
    except NotImplementedError:
        # jax 0.7 cannot vmap the gradient of a convolution: one example at a time there
        found = jax.lax.map(fn, rows)
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), found)
