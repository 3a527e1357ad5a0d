"""Is a loss per-example? Its shape, and whether a row's loss depends on the row alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.errors import InputError, check_examples, check_finite
from jaxinf.typing import Batch, Params, PerExampleLoss

# relative; a BatchNorm in train mode moves losses by percents, rounding by a few units in the
# last place
_TOLERANCES = {"float64": 1e-8, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
# losses below this are compared absolutely: a well-fitted example's loss is rounding noise
_SMALL_LOSS = 1e-2


def check_loss_shape(loss_fn: PerExampleLoss, params: Params, batch: Batch) -> jax.ShapeDtypeStruct:
    """Check that a loss returns one floating-point number per example, without running it.

    Only shapes are looked at (`jax.eval_shape`), so it may be called while tracing.

    Args:
        loss_fn: `loss_fn(params, batch) -> float[B]`.
        params: pytree of what the loss differentiates.
        batch: pytree of arrays with a common leading axis B.

    Returns:
        Shape (B,) and dtype of the losses.

    Raises:
        InputError: the loss returns no single array, a scalar, another shape, or integers.

    Example:
        >>> loss_fn = lambda w, batch: jnp.mean((batch["x"] @ w) ** 2)
        >>> check_loss_shape(loss_fn, jnp.ones(2), {"x": jnp.ones((4, 2))})
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: loss_fn must return one loss per example, shape (4,), not ():
        drop the mean
    """
    size = check_examples(batch, "batch")
    losses = jax.eval_shape(loss_fn, params, batch)
    if not isinstance(losses, jax.ShapeDtypeStruct):
        raise InputError(
            f"loss_fn must return one array of shape ({size},), not a {type(losses).__name__}: "
            "return the losses alone"
        )
    if losses.shape != (size,):
        advice = "drop the mean" if losses.ndim == 0 else "reduce every axis but the first"
        raise InputError(
            f"loss_fn must return one loss per example, shape ({size},), not {losses.shape}: "
            f"{advice}"
        )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise InputError(f"loss_fn must return floating-point losses, not {losses.dtype}")
    return losses


def check_per_example(
    loss_fn: PerExampleLoss, params: Params, batch: Batch, *, tolerance: float | None = None
) -> None:
    """Check that each row's loss depends on that row alone; runs the loss twice.

    The second half of the rows is replaced by copies of row 0, and the losses of the first half
    must not change. The batch keeps its shape, so that the very same program runs twice and
    rounding does not differ. A BatchNorm in train mode fails; so does a loss normalised over
    the batch.

    Args:
        loss_fn: `loss_fn(params, batch) -> float[B]`.
        params: pytree of what the loss differentiates.
        batch: pytree of arrays with a common leading axis B; a few unlike rows are enough. Of
            a single row only the shape is checked.
        tolerance: largest change, relative to the largest loss; by default by the losses'
            dtype: 1e-8 in float64, 1e-4 in float32, 1e-2 in float16, 3e-2 in bfloat16.

    Raises:
        InputError: as `check_loss_shape`; a loss that is NaN or infinite; or a row whose loss
            changes with its company.

    Example:
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> check_per_example(lambda w, batch: batch["x"] @ w, jnp.ones(2), {"x": x})
        >>> centred = lambda w, batch: (batch["x"] - batch["x"].mean(0, keepdims=True)) @ w
        >>> check_per_example(centred, jnp.ones(2), {"x": x})
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: the loss of row 0 changes by 5 when other rows of its batch do...
    """
    losses = check_loss_shape(loss_fn, params, batch)
    size = losses.shape[0]
    kept = -(-size // 2)
    rows = np.where(np.arange(size) < kept, np.arange(size), 0)
    # a Partial is data: every one of the same function shares one compiled program
    is_data = isinstance(loss_fn, jax.tree_util.Partial)
    run = partial(_run, loss_fn) if is_data else jax.jit(loss_fn)
    before = _first(run(params, batch), kept)
    check_finite(before, "loss_fn(params, batch)", first_row=0)
    after = _first(run(params, jax.tree.map(lambda leaf: leaf[rows], batch)), kept)
    change = np.abs(after - before)
    if tolerance is None:
        tolerance = _TOLERANCES[losses.dtype.name]
    scale = max(float(np.abs(before).max()), _SMALL_LOSS)
    if not change.max() <= tolerance * scale:
        row = int(np.argmax(change))
        raise InputError(
            f"the loss of row {row} changes by {change[row]:.2g} when other rows of its batch do, "
            "so it is no per-example loss: put BatchNorm in eval mode (train=False), and reduce "
            "nothing over the batch"
        )


@jax.jit
def _run(loss_fn: jax.tree_util.Partial, params: Params, batch: Batch) -> jax.Array:
    return loss_fn(params, batch)


def _first(losses: jax.Array, count: int) -> np.ndarray:
    return np.asarray(losses[:count], dtype=np.float64)
