"""dm-haiku transforms as per-example losses."""

import inspect
from dataclasses import dataclass
from typing import Any

import jax

from jaxinf.adapters.shared import ByValue, Inputs, OutputLoss, pick_inputs, split_keywords
from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


@dataclass(frozen=True, eq=False)
class _Loss(ByValue):
    apply: Any
    loss: OutputLoss
    inputs: Inputs
    leading: tuple[str, ...]
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, frozen: PyTree, params: Params, batch: Batch) -> jax.Array:
        state_and_rng, traced = frozen
        leading = [state_and_rng[name] for name in self.leading]
        x = pick_inputs(batch, self.inputs)
        outputs = self.apply(params, *leading, x, **traced, **dict(self.keywords))
        return self.loss(outputs[0] if "state" in self.leading else outputs, batch)


def from_haiku(
    transformed: Any,
    params: Params,
    loss: OutputLoss,
    *,
    state: PyTree = None,
    rng: Any = None,
    inputs: Inputs = "x",
    **apply_kwargs: Any,
) -> tuple[PerExampleLoss, Params]:
    """Turn a `haiku.transform` or `haiku.transform_with_state` into `(loss_fn, params)`.

    Args:
        transformed: its `apply` is called on one input; what it does to the state is dropped.
        params: what `transformed.init` returned.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        state: the state that `transform_with_state`'s `init` returned; frozen.
        rng: the key for `apply`; None for a function that draws nothing.
        inputs: key, position or function that takes `x` out of a batch.
        **apply_kwargs: further arguments of the function, such as `is_training=False`. Those
            that hold arrays are traced.

    Returns:
        `loss_fn(params, batch) -> float[B]`, a `jax.tree_util.Partial` over state and rng, and
        params as they came.

    Raises:
        InputError: a state that the function does not take, or no state where it takes one.

    Example:
        >>> import haiku as hk, jax.numpy as jnp
        >>> net, x = hk.transform(lambda x: hk.Linear(1)(x)), jnp.ones((4, 2))
        >>> params = net.init(jax.random.key(0), x)
        >>> loss_fn, params = from_haiku(net, params, lambda out, batch: out[:, 0] ** 2)
        >>> loss_fn(params, {"x": x}).shape
        (4,)
    """
    # apply is (params, [state,] [rng,] *inputs): without_state and without_apply_rng drop one
    names = list(inspect.signature(transformed.apply).parameters)[1:3]
    leading = tuple(names[: 2 if names[0] == "state" else 1])
    leading = tuple(name for name in leading if name in ("state", "rng"))
    if "state" in leading and state is None:
        raise InputError("the transform takes a state: pass state=, as its init returned it")
    if "state" not in leading and state is not None:
        raise InputError("the transform takes no state: drop state=")
    traced, static = split_keywords(apply_kwargs)
    loss_fn = _Loss(transformed.apply, loss, inputs, leading, static)
    return jax.tree_util.Partial(loss_fn, ({"state": state, "rng": rng}, traced)), params
