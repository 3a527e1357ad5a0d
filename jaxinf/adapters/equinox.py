"""equinox models as per-example losses."""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax

from jaxinf.adapters.shared import ByValue, Inputs, OutputLoss, pick_inputs
from jaxinf.errors import InputError, MissingExtraError
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


@dataclass(frozen=True, eq=False)
class _Loss(ByValue):
    static: Any
    loss: OutputLoss
    inputs: Inputs
    vmap: bool

    def __call__(self, frozen: PyTree, params: Params, batch: Batch) -> jax.Array:
        arrays, state = frozen
        model = _equinox().combine(params, arrays, self.static)

        def call(x: PyTree, state: PyTree) -> PyTree:
            return model(x) if state is None else model(x, state)[0]

        x = pick_inputs(batch, self.inputs)
        if self.vmap:
            return self.loss(jax.vmap(call, in_axes=(0, None))(x, state), batch)
        # a State that is written to is used up: hand each call its own
        return self.loss(call(x, jax.tree.map(lambda leaf: leaf, state)), batch)


def from_equinox(
    model: Any,
    loss: OutputLoss,
    *,
    inputs: Inputs = "x",
    state: PyTree = None,
    vmap: bool = True,
) -> tuple[PerExampleLoss, Params]:
    """Turn an equinox model into `(loss_fn, params)`, in inference mode.

    Args:
        model: called as `model(x)` on a single example, or `model(x, state)` with `state`. Its
            floating-point arrays are differentiated, everything else is frozen.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        inputs: key, position or function that takes `x` out of a batch.
        state: the `equinox.nn.State` of a stateful model (BatchNorm); frozen.
        vmap: map the model over the examples of a batch; False for one that takes a batch.

    Returns:
        `loss_fn(params, batch) -> float[B]`, a `jax.tree_util.Partial` over the frozen arrays
        and state, and params: the model with None in place of what is not differentiated.

    Raises:
        MissingExtraError: equinox is not installed.
        InputError: the model holds no floating-point arrays.

    Example:
        >>> import equinox as eqx, jax.numpy as jnp
        >>> model = eqx.nn.Linear(2, 1, key=jax.random.key(0))
        >>> loss_fn, params = from_equinox(model, lambda out, batch: out[:, 0] ** 2)
        >>> loss_fn(params, {"x": jnp.ones((4, 2))}).shape
        (4,)
    """
    eqx = _equinox()
    params, rest = eqx.partition(eqx.nn.inference_mode(model), eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise InputError(
            f"{type(model).__name__} holds no floating-point jax arrays: nothing to differentiate"
        )
    arrays, static = eqx.partition(rest, eqx.is_array)
    loss_fn = _Loss(static, loss, inputs, vmap)
    return jax.tree_util.Partial(loss_fn, (arrays, state)), params


def _equinox() -> ModuleType:
    try:
        return importlib.import_module("equinox")
    except ModuleNotFoundError as error:
        raise MissingExtraError("equinox is needed here: pip install equinox") from error
