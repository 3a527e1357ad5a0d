"""Training by mini-batches as one pure function of a key and the examples to train on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

from jaxinf.adapters import StatefulLoss
from jaxinf.errors import InputError, check_examples, check_finite
from jaxinf.models.step import Augment, check_loss, update
from jaxinf.typing import Batch, Params, PyTree


def sgd_trainer(
    loss: StatefulLoss,
    init: Callable[[jax.Array], tuple[Params, PyTree]],
    data: Batch,
    *,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    augment: Augment | None = None,
    outputs: Callable[[Params, PyTree], PyTree] | None = None,
) -> Partial:
    """Make a `train_fn(key, rows)` for `retrain_on_subsets`, of any optax optimiser.

    It trains as `jaxinf.models.fit` does: every epoch visits the examples in a new random order,
    and leaves out the last n mod batch_size of that order. The whole training is one compiled
    scan, which vmaps over keys and subsets.

    Args:
        loss: `loss(params, state, batch, *, train) -> (float[B], new_state)`, as from
            `jaxinf.adapters.stateful_from_linen`.
        init: `init(key) -> (params, state)`; one that ignores its key gives all models the same
            start.
        data: pytree of arrays with leading axis N, held on the device. Where its "y" holds
            classes, `retrain_on_subsets` refuses a subset that lacks one, unless it is told
            `allow_missing_classes=True`.
        optimizer: optax gradient transformation; weight decay and schedules belong in it.
        num_epochs: passes over a subset.
        batch_size: B; subsets of fewer examples are one batch.
        augment: `augment(key, batch) -> batch`.
        outputs: `outputs(params, state) -> pytree`, what is kept of a trained model, such as its
            margins on the queries; by default `(params, state)`.

    Returns:
        A `jax.tree_util.Partial` over the data.

    Raises:
        InputError: for data that cannot be used, or counts that are not positive.

    Example:
        >>> def loss(params, state, batch, *, train):
        ...     return (batch["x"] @ params - batch["y"]) ** 2, state
        >>> x = np.eye(4, dtype=np.float32)
        >>> train = sgd_trainer(loss, lambda key: (jnp.zeros(4), {}), {"x": x, "y": x.sum(0)},
        ...     optimizer=optax.sgd(0.5), num_epochs=20, batch_size=2)
        >>> params, _ = train(jax.random.key(0), jnp.array([0, 1]))
        >>> params.round(3).tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    check_examples(data, "data")
    check_finite(data, "data", first_row=0)
    for name, value in {"num_epochs": num_epochs, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")
    key = jax.random.key(0)
    params, state = jax.eval_shape(init, key)
    first = jax.tree.map(lambda a: np.asarray(a[: min(batch_size, len(a))]), data)
    check_loss(loss, augment, params, state, first, key)

    def train(data: Batch, key: jax.Array, rows: jax.Array) -> PyTree:
        size = min(batch_size, rows.shape[0])
        num_steps = rows.shape[0] // size
        init_key, run_key = jax.random.split(key)
        params, state = init(init_key)

        def epoch(carry: Any, number: jax.Array) -> tuple[Any, None]:
            order_key, step_key = jax.random.split(jax.random.fold_in(run_key, number))
            order = jax.random.permutation(order_key, rows)
            batches = order[: num_steps * size].reshape(num_steps, size)

            def step(carry: Any, at: Any) -> tuple[Any, None]:
                index, chosen = at
                batch = jax.tree.map(lambda a: a[chosen], data)
                total = jnp.zeros((), jnp.float32)
                carry, _ = update(loss, optimizer, augment, carry, total, batch, step_key, index)
                return carry, None

            return lax.scan(step, carry, (jnp.arange(num_steps), batches))[0], None

        start = (params, state, optimizer.init(params))
        (params, state, _), _ = lax.scan(epoch, start, jnp.arange(num_epochs))
        return (params, state) if outputs is None else outputs(params, state)

    return Partial(train, jax.tree.map(jnp.asarray, data))
