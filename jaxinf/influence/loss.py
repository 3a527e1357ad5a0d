"""The user's loss as the scorers call it: checked, at one precision, carrying its frozen state."""

from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.adapters import check_loss_shape
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


def scoring_loss(
    loss_fn: PerExampleLoss, compute_dtype: Any = None, matmul_precision: str | None = None
) -> Partial:
    """Wrap a per-example loss for scoring.

    The result is a pytree: whatever `loss_fn` carries as a `jax.tree_util.Partial` (frozen
    statistics, say) stays an argument of compiled functions, and is not baked into them.

    Args:
        loss_fn: `(params, batch) -> float[B]`.
        compute_dtype: dtype that floating-point parameters and inputs are cast to; None leaves
            them as they are.
        matmul_precision: as in `jax.default_matmul_precision`; None leaves the default.

    Returns:
        A `Partial` with the same signature whose losses are float32 or wider.
    """
    carried = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    # not a Partial within a Partial: those are never equal, and nothing would be compiled once
    return Partial(_ScoringLoss(compute_dtype, matmul_precision), carried)


class _ScoringLoss:
    """Static settings; equal settings are equal, so that compiled functions are shared."""

    def __init__(self, compute_dtype: Any, matmul_precision: str | None):
        self._key = (
            None if compute_dtype is None else jnp.dtype(compute_dtype),
            matmul_precision,
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ScoringLoss) and self._key == other._key

    def __repr__(self) -> str:
        return f"scoring_loss{self._key}"

    def __call__(self, loss_fn: Partial, params: Params, batch: Batch) -> jax.Array:
        compute_dtype, precision = self._key
        if compute_dtype is not None:
            params, batch = cast_floating((params, batch), compute_dtype)
        check_loss_shape(loss_fn, params, batch)
        with jax.default_matmul_precision(precision) if precision else nullcontext():
            losses = loss_fn(params, batch)
        return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))


def cast_floating(tree: PyTree, dtype: Any) -> PyTree:
    """Cast the floating-point leaves of a pytree."""
    return jax.tree.map(
        lambda a: jnp.asarray(a, dtype) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a,
        tree,
    )
