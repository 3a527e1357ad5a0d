"""flax.linen modules as per-example losses."""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import flax.core
import flax.errors
import flax.linen as nn
import jax
from jaxtyping import PRNGKeyArray

from jaxinf.adapters.shared import (
    ByValue,
    Inputs,
    OutputLoss,
    StatefulLoss,
    pick_inputs,
    split_keywords,
)
from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree

# keywords of Module.apply itself; the others go to the module
_APPLY_KEYWORDS = {"rngs", "method"}
_EVAL_ADVICE = "its state is frozen here: pass train=False, or whatever puts it in eval mode"
_TRAIN_ADVICE = "name its random streams in rngs=, and hand every collection over in variables"


@dataclass(frozen=True, eq=False)
class _Loss(ByValue):
    module: nn.Module
    loss: OutputLoss
    inputs: Inputs
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, frozen: PyTree, params: Params, batch: Batch) -> jax.Array:
        collections, traced = frozen
        x = pick_inputs(batch, self.inputs)
        with _one_line_errors(self.module, _EVAL_ADVICE):
            outputs = self.module.apply(
                {"params": params, **collections}, x, **traced, **dict(self.keywords)
            )
        return self.loss(outputs, batch)


@dataclass(frozen=True, eq=False)
class _StatefulLoss(ByValue):
    module: nn.Module
    loss: OutputLoss
    inputs: Inputs
    train_keywords: tuple[tuple[str, Any], ...]
    eval_keywords: tuple[tuple[str, Any], ...]
    rngs: tuple[str, ...]

    def __call__(
        self,
        params: Params,
        state: PyTree,
        batch: Batch,
        *,
        train: bool,
        key: PRNGKeyArray | None = None,
    ) -> tuple[jax.Array, PyTree]:
        x = pick_inputs(batch, self.inputs)
        variables = {"params": params, **state}
        if not train:
            with _one_line_errors(self.module, _EVAL_ADVICE):
                outputs = self.module.apply(variables, x, **dict(self.eval_keywords))
            return self.loss(outputs, batch), state
        rngs = {}
        if self.rngs:
            if key is None:
                name = type(self.module).__name__
                raise InputError(f"{name} draws from {list(self.rngs)} in train mode: pass key=")
            rngs = {name: jax.random.fold_in(key, i) for i, name in enumerate(self.rngs)}
        with _one_line_errors(self.module, _TRAIN_ADVICE):
            outputs, moved = self.module.apply(
                variables, x, rngs=rngs, mutable=list(state), **dict(self.train_keywords)
            )
        return self.loss(outputs, batch), {**state, **flax.core.unfreeze(moved)}


def from_linen(
    module: nn.Module,
    variables: Mapping[str, PyTree],
    loss: OutputLoss,
    *,
    inputs: Inputs = "x",
    **apply_kwargs: Any,
) -> tuple[PerExampleLoss, Params]:
    """Turn a flax.linen module and its variables into `(loss_fn, params)`.

    Args:
        module: called as `module.apply(variables, x, **apply_kwargs)`.
        variables: what `module.init` returned: `variables["params"]` is differentiated, the
            other collections (such as `batch_stats`) are frozen.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        inputs: key, position or function that takes `x` out of a batch.
        **apply_kwargs: for the module or for `apply`. A linen module has no mode of its own:
            one that takes `train` (or `deterministic`) needs `train=False` from you here.
            Those that hold arrays, such as `rngs={"dropout": key}`, are traced.

    Returns:
        `loss_fn(params, batch) -> float[B]`, a `jax.tree_util.Partial` over the frozen
        collections, and params.

    Raises:
        InputError: no `params` in variables; an argument that the module wants and was not
            given, or does not know; `mutable`; and, when the loss is called, a module in train
            mode (it updates a frozen collection, or asks for random numbers).

    Example:
        >>> import jax.numpy as jnp
        >>> module, x = nn.Dense(1), jnp.ones((4, 2))
        >>> variables = module.init(jax.random.key(0), x)
        >>> loss_fn, params = from_linen(module, variables, lambda out, batch: out[:, 0] ** 2)
        >>> loss_fn(params, {"x": x}).shape
        (4,)
    """
    if "mutable" in apply_kwargs:
        raise InputError(
            "from_linen freezes every collection but params: drop mutable=, or use "
            "stateful_from_linen for a loss whose train mode moves them"
        )
    params, collections = _split(variables)
    _check_arguments(module, apply_kwargs, "train=False")
    traced, static = split_keywords(apply_kwargs)
    loss_fn = _Loss(module, loss, inputs, static)
    return jax.tree_util.Partial(loss_fn, (collections, traced)), params


def stateful_from_linen(
    module: nn.Module,
    variables: Mapping[str, PyTree],
    loss: OutputLoss,
    *,
    inputs: Inputs = "x",
    train_kwargs: Mapping[str, Any] = MappingProxyType({"train": True}),
    eval_kwargs: Mapping[str, Any] = MappingProxyType({"train": False}),
    rngs: Sequence[str] = (),
) -> tuple[StatefulLoss, tuple[Params, PyTree]]:
    """Turn a flax.linen module into a loss whose train mode moves its other collections.

    Args:
        module: called as `module.apply(variables, x, **train_kwargs)`, or with `eval_kwargs`.
        variables: what `module.init` returned.
        loss: `loss(outputs, batch) -> float[B]`, one loss per example.
        inputs: key, position or function that takes `x` out of a batch.
        train_kwargs: what puts the module in train mode; `{}` when it has no mode.
        eval_kwargs: what puts it in eval mode; `{}` when it has no mode.
        rngs: names of the random streams that train mode draws from, such as `("dropout",)`.

    Returns:
        `stateful_loss(params, state, batch, *, train, key=None) -> (float[B], new_state)` and
        `(params, state)`; state is a dict of every collection but params. In eval mode it comes
        back as it was; in train mode BatchNorm uses and moves batch statistics, and `key` seeds
        the streams that `rngs` names.

    Raises:
        InputError: as for `from_linen`; and, when called in train mode, for `rngs` without `key`.

    Example:
        >>> import jax.numpy as jnp
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train):
        ...         return nn.BatchNorm(use_running_average=not train)(x)
        >>> batch = {"x": jnp.ones((4, 2))}
        >>> variables = Net().init(jax.random.key(0), batch["x"], train=False)
        >>> stateful_loss, (params, state) = stateful_from_linen(
        ...     Net(), variables, lambda out, _: out.sum(-1)
        ... )
        >>> losses, moved = stateful_loss(params, state, batch, train=True)
        >>> moved["batch_stats"]["BatchNorm_0"]["mean"]
        Array([0.01, 0.01], dtype=float32)
    """
    params, state = _split(variables)
    for name, keywords in {"train_kwargs": train_kwargs, "eval_kwargs": eval_kwargs}.items():
        _check_arguments(module, keywords, f"{name}={{...}}")
    stateful_loss = _StatefulLoss(
        module,
        loss,
        inputs,
        tuple(sorted(train_kwargs.items())),
        tuple(sorted(eval_kwargs.items())),
        tuple(rngs),
    )
    return stateful_loss, (params, state)


def _split(variables: Mapping[str, PyTree]) -> tuple[Params, dict[str, PyTree]]:
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise InputError(
            "variables must be what module.init returned, {'params': ..., ...}: wrap bare "
            "parameters as {'params': params}"
        )
    collections = flax.core.unfreeze(dict(variables))
    params = collections.pop("params")
    return params, collections


def _check_arguments(module: nn.Module, keywords: Mapping[str, Any], advice: str) -> None:
    method = keywords.get("method") or "__call__"
    if isinstance(method, str):
        function = getattr(module, method)
    else:
        function = functools.partial(getattr(method, "__func__", method), module)
    for_module = {name: keywords[name] for name in keywords if name not in _APPLY_KEYWORDS}
    try:
        inspect.signature(function).bind(None, **for_module)
    except TypeError as error:
        raise InputError(
            f"{type(module).__name__} cannot be called on one input ({error}): give the module's "
            f"other arguments, and only those, as keywords, such as {advice}"
        ) from error


@contextmanager
def _one_line_errors(module: nn.Module, advice: str) -> Iterator[None]:
    try:
        yield
    except (flax.errors.ModifyScopeVariableError, flax.errors.InvalidRngError) as error:
        reason = str(error).split(" (https://")[0].rstrip(".")
        raise InputError(f"{type(module).__name__}: {reason}; {advice}") from error
