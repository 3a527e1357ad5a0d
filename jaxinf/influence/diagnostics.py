"""What a finite step's scores can be trusted for, estimated on a few training examples."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.influence.scorers import directional_derivatives, finite_changes
from jaxinf.typing import Batch, Params


def step_diagnostics(
    loss: Partial, models: Params, batch: Batch, key: jax.Array, dtype: Any = None
) -> dict[str, Float[jax.Array, " K"]]:
    """Compare a finite step with its first-order limit and with the dtype's resolution.

    Args:
        loss: per-example loss.
        models: the model, and the model after each query's step; leading axis K + 1.
        batch: training examples to estimate on.
        key: for the random rounding.
        dtype: what the loss is computed in; None for the parameters' own.

    Returns:
        Per query, as root mean squares over the examples:
        `nonlinearity`, |finite − first order| over |first order|: 0 is the linear regime;
        `roundoff`, the change that moving every parameter at random by up to one unit in the last
        place makes to a loss difference, over |finite|: above about 0.1 the scores are noise.
    """
    finite = finite_changes(loss, models, batch)
    params = jax.tree.map(lambda m: m[0], models)
    step = jax.tree.map(lambda m: m[1:] - m[:1], models)
    first_order = directional_derivatives(loss, params, step, batch, chunk=1)
    base = loss(params, batch)
    rounded = loss(_round_at_random(params, key, dtype), batch)
    # a score is the difference of two rounded losses
    noise = jnp.sqrt(2.0) * _rms(rounded - base)
    return {
        "nonlinearity": _ratio(_rms(finite - first_order), _rms(first_order)),
        "roundoff": _ratio(noise, _rms(finite)),
    }


def unresolved_share(params: Params, displacement: Params, dtype: Any = None) -> jax.Array:
    """Share of the non-zero entries of a displacement that vanish when it is added in `dtype`."""
    wanted, lost = jnp.zeros(()), jnp.zeros(())
    for p, u in zip(jax.tree.leaves(params), jax.tree.leaves(displacement), strict=True):
        narrow = dtype or p.dtype
        moves = u != 0
        same = (p + u).astype(p.dtype).astype(narrow) == p.astype(narrow)
        wanted += jnp.sum(moves)
        lost += jnp.sum(moves & same)
    return _ratio(lost, wanted)


def _round_at_random(params: Params, key: jax.Array, dtype: Any) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def move(p: jax.Array, key: jax.Array) -> jax.Array:
        eps = jnp.finfo(dtype or p.dtype).eps
        wide = p.astype(jnp.promote_types(p.dtype, jnp.float32))
        ulps = jax.random.uniform(key, p.shape, wide.dtype, -1.0, 1.0)
        return (wide * (1 + eps * ulps)).astype(p.dtype)

    return jax.tree.unflatten(structure, [move(p, k) for p, k in zip(leaves, keys, strict=True)])


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=-1))


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), jnp.where(a > 0, jnp.inf, 0.0))
