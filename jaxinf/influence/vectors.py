"""Directions as the rows of one matrix, for linear algebra, and back."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxinf.typing import Params


def to_vector(tree: Params) -> Float[jax.Array, " P"]:
    """Leaves laid end to end, in float32 or wider."""
    return to_matrix(jax.tree.map(lambda a: a[None], tree))[0]


def to_matrix(directions: Params) -> Float[jax.Array, "K P"]:
    """Leaves with a leading axis K laid end to end, in float32 or wider.

    Example:
        >>> to_matrix({"b": jnp.zeros((1, 2)), "w": jnp.ones((1, 2, 1))}).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    leaves = jax.tree.leaves(directions)
    dtype = jnp.result_type(jnp.float32, *leaves)
    return jnp.concatenate(
        [a.reshape(a.shape[0], math.prod(a.shape[1:])).astype(dtype) for a in leaves], axis=1
    )


def to_tree(vector: Float[jax.Array, "... P"], like: Params) -> Params:
    """The inverse: a pytree shaped like `like`, keeping leading axes and the vector's dtype."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        shape = jnp.shape(leaf)
        stop = start + math.prod(shape)
        parts.append(vector[..., start:stop].reshape(*vector.shape[:-1], *shape))
        start = stop
    return jax.tree.unflatten(structure, parts)


def as_tangent(vector: Float[jax.Array, " P"], params: Params) -> Params:
    """One direction in the shapes and dtypes of `params`, as forward mode wants it."""
    return jax.tree.map(lambda u, p: u.astype(jnp.result_type(p)), to_tree(vector, params), params)


def row_dots(a: Float[jax.Array, "K P"], b: Float[jax.Array, "K P"]) -> Float[jax.Array, " K"]:
    """Dot product of each row of `a` with the same row of `b`."""
    return jnp.sum(a * b, axis=1)


def row_norms(a: Float[jax.Array, "K P"]) -> Float[jax.Array, " K"]:
    """Euclidean norm of each row."""
    return jnp.sqrt(row_dots(a, a))
