"""One training step: augment, differentiate the mean loss, update."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PyTree

StatefulLoss: TypeAlias = Callable[..., tuple[jax.Array, PyTree]]
"""`loss(params, state, batch, *, train) -> (float[B], new_state)`; may also take `key`."""

Augment: TypeAlias = Callable[[jax.Array, Batch], Batch]
"""`augment(key, batch) -> batch`, traced."""

Carry: TypeAlias = tuple[Params, PyTree, PyTree]
"""Parameters, the model's state, the optimiser's state."""


def update(
    loss: StatefulLoss,
    optimizer: optax.GradientTransformation,
    augment: Augment | None,
    carry: Carry,
    total: jax.Array,
    batch: Batch,
    key: jax.Array,
    index: jax.Array,
) -> tuple[Carry, jax.Array]:
    """Update parameters and states on one batch.

    Args:
        loss: per-example loss with state.
        optimizer: optax gradient transformation.
        augment: change to the batch, or None.
        carry: parameters, state, optimiser state.
        total: float32, sum of the mean losses of this epoch's earlier batches.
        batch: B examples.
        key: the epoch's key.
        index: number of the batch in its epoch.

    Returns:
        The new carry, and `total` plus this batch's mean loss.
    """
    params, state, opt_state = carry

    def objective(params: Params) -> tuple[jax.Array, PyTree]:
        step_key = jax.random.fold_in(key, index)
        losses, moved = _evaluate(loss, augment, params, state, batch, step_key)
        return losses.astype(jnp.promote_types(losses.dtype, jnp.float32)).mean(), moved

    (mean, state), grads = jax.value_and_grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, state, opt_state), total + mean.astype(jnp.float32)


# One compiled step called from Python, not a `lax.scan` over the epoch: inside a loop XLA runs
# convolutions on a CPU without its fast kernels (measured on two cores: training steps of
# two-layer convolutional networks take 5 to 10 times as long), and a dispatch costs
# microseconds. Loss, optimiser and augmentation are static, so training the same model again,
# as leave-one-out does, compiles nothing.
compiled_update = jax.jit(update, static_argnums=(0, 1, 2), donate_argnums=3)


def _evaluate(
    loss: StatefulLoss,
    augment: Augment | None,
    params: Params,
    state: PyTree,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, PyTree]:
    augment_key, loss_key = jax.random.split(key)
    if augment is not None:
        batch = augment(augment_key, batch)
    keywords = {"key": loss_key} if "key" in inspect.signature(loss).parameters else {}
    return loss(params, state, batch, train=True, **keywords)


def check_loss(
    loss: StatefulLoss,
    augment: Augment | None,
    params: Params,
    state: PyTree,
    batch: Batch,
    key: jax.Array,
) -> None:
    """Trace the loss on one batch and check what it returns; nothing is computed.

    Raises:
        InputError: it returns no pair, no float[B], or a state of another type than it got.
    """
    out = jax.eval_shape(functools.partial(_evaluate, loss, augment), params, state, batch, key)
    if not isinstance(out, tuple) or len(out) != 2:
        raise InputError("loss must return a pair: losses float[B] and the new state")
    losses, moved = out
    size = jax.tree.leaves(batch)[0].shape[0]
    shape, dtype = getattr(losses, "shape", None), getattr(losses, "dtype", None)
    if shape != (size,) or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        given = type(losses).__name__ if dtype is None else f"{dtype}{list(shape or ())}"
        raise InputError(
            f"loss returned {given} for a batch of {size}: it must be float[{size}], one loss per "
            "example, not their mean"
        )
    if _types(moved) != _types(jax.eval_shape(lambda state: state, state)):
        raise InputError(
            "loss returned a state of another structure, shape or dtype than it was given: "
            "return all of it, in its own dtypes"
        )


def _types(tree: PyTree) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
