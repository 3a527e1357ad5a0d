"""flax.nnx models as per-example losses."""

from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

from jaxinf.adapters.shared import ByValue, Inputs, OutputLoss, StatefulLoss, pick_inputs
from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


@dataclass(frozen=True, eq=False)
class _Loss(ByValue):
    graphdef: Any
    loss: OutputLoss
    inputs: Inputs

    def __call__(self, frozen: PyTree, params: Params, batch: Batch) -> jax.Array:
        model = _merge(self.graphdef, params, frozen)
        return self.loss(model(pick_inputs(batch, self.inputs)), batch)


@dataclass(frozen=True, eq=False)
class _StatefulLoss(ByValue):
    train_graphdef: Any
    eval_graphdef: Any
    loss: OutputLoss
    inputs: Inputs

    def __call__(
        self,
        params: Params,
        state: PyTree,
        batch: Batch,
        *,
        train: bool,
        key: PRNGKeyArray | None = None,
    ) -> tuple[jax.Array, PyTree]:
        model = _merge(self.train_graphdef if train else self.eval_graphdef, params, state)
        if train and key is not None:
            _reseed(model, key)
        losses = self.loss(model(pick_inputs(batch, self.inputs)), batch)
        return losses, nnx.split(model, nnx.Param, ...)[2] if train else state


def from_nnx(
    model: nnx.Module, loss: OutputLoss, *, inputs: Inputs = "x", train: bool = False
) -> tuple[PerExampleLoss, Params]:
    """Turn a flax.nnx model into `(loss_fn, params)`; the model itself is left as it was.

    Args:
        model: called as `model(x)`. Its `nnx.Param` variables are differentiated; everything
            else (BatchNorm statistics, random-number streams) is frozen.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        inputs: key, position or function that takes `x` out of a batch.
        train: run in train mode. Then BatchNorm normalises by the batch, and rows depend on
            their company: no per-example loss, and `check_per_example` refuses it.

    Returns:
        `loss_fn(params, batch) -> float[B]`, a `jax.tree_util.Partial` over the frozen state,
        and params, the `nnx.State` of the model's `nnx.Param` variables.

    Raises:
        InputError: model is no `nnx.Module`, or holds no `nnx.Param`.

    Example:
        >>> import jax.numpy as jnp
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> loss_fn, params = from_nnx(model, lambda out, batch: (out[:, 0] - batch["y"]) ** 2)
        >>> loss_fn(params, {"x": jnp.ones((4, 2)), "y": jnp.zeros(4)}).shape
        (4,)
    """
    graphdef, params, frozen = _split(model, train=train)
    return jax.tree_util.Partial(_Loss(graphdef, loss, inputs), frozen), params


def stateful_from_nnx(
    model: nnx.Module, loss: OutputLoss, *, inputs: Inputs = "x"
) -> tuple[StatefulLoss, tuple[Params, PyTree]]:
    """Turn a flax.nnx model into a loss whose train mode moves the state; the model stays as is.

    Args:
        model: called as `model(x)`.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        inputs: key, position or function that takes `x` out of a batch.

    Returns:
        `stateful_loss(params, state, batch, *, train, key=None) -> (float[B], new_state)` and
        `(params, state)`, both `nnx.State`. In eval mode the state comes back as it was. In
        train mode BatchNorm uses and moves batch statistics, and dropout draws from the
        model's own streams, which advance with the state; `key`, when given, reseeds them.

    Raises:
        InputError: model is no `nnx.Module`, or holds no `nnx.Param`.

    Example:
        >>> import jax.numpy as jnp
        >>> model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
        >>> stateful_loss, (params, state) = stateful_from_nnx(model, lambda out, _: out.sum(-1))
        >>> batch = {"x": jnp.ones((4, 2))}
        >>> losses, moved = stateful_loss(params, state, batch, train=True)
        >>> float(moved["mean"][...][0]) > float(state["mean"][...][0])
        True
    """
    train_graphdef, params, state = _split(model, train=True)
    eval_graphdef, _, _ = _split(model, train=False)
    return _StatefulLoss(train_graphdef, eval_graphdef, loss, inputs), (params, state)


def _split(model: nnx.Module, *, train: bool) -> tuple[Any, Params, PyTree]:
    if not isinstance(model, nnx.Module):
        raise InputError(f"model must be a flax.nnx Module, not {type(model).__name__}")
    model = nnx.clone(model)  # train() and eval() set attributes on the model they are called on
    if train:
        model.train()
    else:
        model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    if not jax.tree.leaves(params):
        raise InputError(f"{type(model).__name__} holds no nnx.Param: nothing to differentiate")
    return graphdef, params, rest


def _merge(graphdef: Any, params: Params, state: PyTree) -> Any:
    # without the copy the merged model would share its Variables with `state` and, outside jit,
    # a train-mode call would write into it
    return nnx.merge(graphdef, params, state, copy=True)


def _reseed(model: nnx.Module, key: PRNGKeyArray) -> None:
    keys, structure = jax.tree.flatten(nnx.state(model, nnx.RngKey))
    fresh = [
        jax.random.split(jax.random.fold_in(key, stream), old.shape)
        for stream, old in enumerate(keys)
    ]
    nnx.update(model, jax.tree.unflatten(structure, fresh))
