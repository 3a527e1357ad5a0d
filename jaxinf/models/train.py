"""Training: one compiled step, explicit keys, runs that resume with the same bits."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.engine.fingerprint import fingerprint, program_fingerprint
from jaxinf.engine.progress import track_rows
from jaxinf.errors import InputError, check_examples, check_finite, check_params
from jaxinf.models.checkpoints import epoch_path, open_run, save_epoch, saved_epochs
from jaxinf.models.step import Augment, Carry, StatefulLoss, check_loss, compiled_update, update
from jaxinf.models.storage import load_variables
from jaxinf.typing import Batch, Params, PyTree


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "state", "opt_state", "losses"),
    meta_fields=(),
)
@dataclass(frozen=True)
class TrainResult:
    """What training returns.

    Attributes:
        params: trained parameters.
        state: the model's state after the last step.
        opt_state: the optimiser's state after the last step.
        losses: float32[num_epochs], mean training loss during each epoch.
    """

    params: Params
    state: PyTree
    opt_state: PyTree
    losses: np.ndarray


def fit(
    loss: StatefulLoss,
    params: Params,
    state: PyTree,
    data: Batch,
    *,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    key: jax.Array,
    augment: Augment | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 1,
    progress: bool = True,
) -> TrainResult:
    """Minimise the mean of a per-example loss with an optax optimiser.

    Every epoch visits the examples in a new random order. The last N mod batch_size examples
    of that order are left out of the epoch, so that every batch has the same size (BatchNorm
    and the step size see no smaller one); `batch_size` = N is full-batch training.

    The same arguments give the same result; all randomness comes from `key` and the epoch.

    Args:
        loss: `loss(params, state, batch, *, train) -> (float[B], new_state)`, called with
            `train=True`; if it also takes `key`, it gets one per step. For flax.linen modules
            `jaxinf.adapters.stateful_from_linen` makes it.
        params: initial parameters; they are copied, not consumed.
        state: initial state (BatchNorm statistics), any pytree, `{}` for none.
        data: pytree of host arrays with a common leading axis N.
        optimizer: optax gradient transformation; weight decay and schedules belong in it.
        num_epochs: passes over the data.
        batch_size: B, at most N.
        key: random key for the order of the examples, augmentation and the loss.
        augment: `augment(key, batch) -> batch`, applied inside the compiled step.
        checkpoints: folder for checkpoints. A run that was killed continues from its last one
            and gives the same bits as one that was not; so does one with more epochs.
        checkpoint_every: epochs between checkpoints; the last epoch always gets one.
        progress: show a bar on stderr.

    Returns:
        `TrainResult`.

    Raises:
        InputError: before the first step, for parameters or data that are not finite, unequal
            leading axes, counts that are not positive, a batch larger than the data, a loss of
            the wrong shape, a state that changes its type, or a folder of another run; after an
            epoch, when its mean loss is not finite.

    Example:
        >>> def loss(params, state, batch, *, train):
        ...     return (batch["x"] @ params - batch["y"]) ** 2, state
        >>> x = np.eye(4, dtype=np.float32)
        >>> result = fit(loss, np.zeros(4, np.float32), {}, {"x": x, "y": x.sum(0)}, batch_size=4,
        ...     optimizer=optax.sgd(1.0), num_epochs=20, key=jax.random.key(0), progress=False)
        >>> result.params.round(3).tolist(), result.losses.shape
        ([1.0, 1.0, 1.0, 1.0], (20,))
    """
    count = _check(params, data, num_epochs, batch_size, checkpoint_every)
    data = jax.tree.map(np.asarray, data)
    first = jax.tree.map(lambda a: a[:batch_size], data)
    check_loss(loss, augment, params, state, first, key)
    # copies: each step consumes the carry it is given
    carry = jax.tree.map(jnp.array, (params, state, optimizer.init(params)))
    step = functools.partial(compiled_update, loss, optimizer, augment)
    losses = np.zeros(0, np.float32)
    if checkpoints is not None:
        program = functools.partial(update, loss, optimizer, augment)
        identity = {
            "program": program_fingerprint(program, carry, _ZERO, first, key, np.int32(0)),
            "params": fingerprint((params, state)),
            "data": fingerprint(data),
            "key": fingerprint(key),
            "batch_size": batch_size,
        }
        checkpoints = open_run(checkpoints, identity)
        carry, losses = _resume(checkpoints, num_epochs, carry)

    num_steps = count // batch_size
    with track_rows("training", num_epochs * num_steps, enabled=progress, unit="steps") as advance:
        advance(len(losses) * num_steps)
        for epoch in range(len(losses), num_epochs):
            order_key, step_key = jax.random.split(jax.random.fold_in(key, epoch))
            order = np.asarray(jax.random.permutation(order_key, count))
            total = _ZERO
            for index, batch in enumerate(_batches(data, order, batch_size)):
                previous = total
                carry, total = step(carry, total, batch, step_key, np.int32(index))
                # the next batch is put together while this step runs; no more queue up
                jax.block_until_ready(previous)
                advance(1)
            losses = np.append(losses, np.float32(total) / np.float32(num_steps))
            if not np.isfinite(losses[-1]):
                raise InputError(
                    f"the mean loss of epoch {epoch} is {losses[-1]}: lower the learning rate, "
                    "and check that labels lie in 0 .. C - 1"
                )
            done = epoch + 1
            if checkpoints is not None and (done % checkpoint_every == 0 or done == num_epochs):
                save_epoch(checkpoints, done, _snapshot(carry, losses))
    return TrainResult(*carry, losses=losses)


_ZERO = np.float32(0)


def _resume(directory: Path, num_epochs: int, carry: Carry) -> tuple[Carry, np.ndarray]:
    """Carry and losses after the last checkpoint not beyond `num_epochs`; as new without one."""
    start = max((epoch for epoch in saved_epochs(directory) if epoch <= num_epochs), default=0)
    losses = np.zeros(start, np.float32)
    if not start:
        return carry, losses
    saved = load_variables(epoch_path(directory, start), like=_snapshot(carry, losses))
    carry = saved["params"], saved["state"], saved["opt_state"]
    return jax.tree.map(jnp.array, carry), saved["losses"]


def _batches(data: Batch, order: np.ndarray, batch_size: int) -> Iterator[Batch]:
    for first in range(0, len(order) - batch_size + 1, batch_size):
        rows = order[first : first + batch_size]
        yield jax.tree.map(lambda a, rows=rows: a[rows], data)


def _snapshot(carry: Carry, losses: np.ndarray) -> dict[str, PyTree]:
    params, state, opt_state = carry
    return {"params": params, "state": state, "opt_state": opt_state, "losses": losses}


def _check(
    params: Params, data: Batch, num_epochs: int, batch_size: int, checkpoint_every: int
) -> int:
    check_params(params)
    count = check_examples(data, "data")
    check_finite(data, "data", first_row=0)
    counts = {
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "checkpoint_every": checkpoint_every,
    }
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")
    if batch_size > count:
        raise InputError(f"batch_size is {batch_size} but there are {count} examples: lower it")
    return count
