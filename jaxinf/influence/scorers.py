"""From directions to scores: how the loss of each training example changes along them.

All return float[K, B] and agree on a small direction; they differ in cost (F is one forward
pass of the batch) and in memory.

| scorer | cost | when |
|---|---|---|
| `finite_changes` | (1 + K) F | the step itself is meant, at its finite size |
| `directional_derivatives` | (1 + 2K) F | the exact first-order limit, few directions |
| `contracted_gradients` | about 3 F, and P·K flops | many directions; holds per-example gradients |
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.influence.directions import squared_norm
from jaxinf.influence.example_map import map_examples
from jaxinf.typing import Batch, Params

# What per-example gradients may take at once, where the caller does not say.
_GRADIENT_BYTES = 256 << 20


def finite_changes(
    loss: Partial, models: Params, batch: Batch, chunk: int | None = None
) -> Float[jax.Array, "K B"]:
    """`loss(model_k) - loss(model_0)` for each example and k = 1 to K.

    `models` has a leading axis K + 1. The reference goes through the same loop as the others, so
    that rounding is the same for all and a step of nothing changes nothing, to the bit.
    """
    losses = lax.map(
        lambda at: loss(at, batch), models, batch_size=None if chunk in (None, 1) else chunk
    )
    return losses[1:] - losses[:1]


def directional_derivatives(
    loss: Partial, params: Params, directions: Params, batch: Batch, chunk: int | None = None
) -> Float[jax.Array, "K B"]:
    """Exact derivative of each example's loss along each direction, by forward mode.

    The primal pass is shared by the `chunk` directions taken at once (None: all of them).
    """

    def along(direction: Params) -> jax.Array:
        tangent = jax.tree.map(lambda u, p: u.astype(jnp.result_type(p)), direction, params)
        return jax.jvp(lambda at: loss(at, batch), (params,), (tangent,))[1]

    count = jax.tree.leaves(directions)[0].shape[0]
    if chunk is None or chunk >= count:
        return jax.vmap(along)(directions)
    return lax.map(along, directions, batch_size=None if chunk == 1 else chunk)


def contracted_gradients(
    loss: Partial, params: Params, directions: Params, batch: Batch, chunk: int | None = None
) -> tuple[Float[jax.Array, "K B"], Float[jax.Array, " B"]]:
    """Per-example gradients contracted with each direction, and their norms.

    Args:
        loss: per-example loss.
        params: where to differentiate.
        directions: like `params`, with a leading axis K.
        batch: leading axis B.
        chunk: how many per-example gradients are held at once; None takes what fits in 256 MiB.

    Returns:
        Scores [K, B] and gradient norms [B].
    """

    def one(example: Batch) -> tuple[jax.Array, jax.Array]:
        gradient = example_gradient(loss, params, example)
        wide = [
            g.astype(jnp.promote_types(g.dtype, jnp.float32)) for g in jax.tree.leaves(gradient)
        ]
        dots = [
            jnp.tensordot(u.reshape(u.shape[0], -1).astype(g.dtype), g.reshape(-1), axes=1)
            for u, g in zip(jax.tree.leaves(directions), wide, strict=True)
        ]
        return jnp.sum(jnp.stack(dots), axis=0), squared_norm(gradient)

    dots, squared = map_examples(one, batch, gradient_chunk(params, batch, chunk))
    return dots.T, jnp.sqrt(squared)


def gradient_norms(
    loss: Partial, params: Params, batch: Batch, chunk: int | None = None
) -> Float[jax.Array, " B"]:
    """Norm of each example's gradient, exactly, from per-example gradients."""

    def one(example: Batch) -> jax.Array:
        return squared_norm(example_gradient(loss, params, example))

    return jnp.sqrt(map_examples(one, batch, gradient_chunk(params, batch, chunk)))


def estimated_gradient_norms(
    loss: Partial, params: Params, batch: Batch, key: jax.Array, num_probes: int
) -> Float[jax.Array, " B"]:
    """Norm of each example's gradient by forward passes alone: ‖g‖² = E[(g·v)²], v ~ N(0, I)."""

    def probe(key: jax.Array) -> jax.Array:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
        tangent = jax.tree.unflatten(structure, draws)
        return jax.jvp(lambda at: loss(at, batch), (params,), (tangent,))[1]

    squares = lax.map(lambda k: jnp.square(probe(k)), jax.random.split(key, num_probes))
    return jnp.sqrt(jnp.mean(squares, axis=0))


def example_gradient(loss: Partial, params: Params, example: Batch) -> Params:
    """Gradient of one example's loss (no leading axis)."""
    alone = jax.tree.map(lambda a: a[None], example)
    return jax.grad(lambda at: loss(at, alone)[0])(params)


def gradient_chunk(params: Params, batch: Batch, chunk: int | None) -> int:
    """How many per-example gradients to hold at once."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    if chunk is None:
        size = sum(p.size * max(p.dtype.itemsize, 4) for p in jax.tree.leaves(params))
        chunk = max(1, _GRADIENT_BYTES // max(size, 1))
    return min(chunk, rows)
