"""The networks that suspicion is read off: trained on all examples, or cut short early."""

import functools
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from jaxinf.adapters import stateful_from_linen
from jaxinf.errors import InputError, check_count, check_examples, check_finite, check_labels
from jaxinf.influence.ground_truth import retrain_on_subsets, sgd_trainer
from jaxinf.models import cross_entropy
from jaxinf.typing import Batch, Params, PerExampleLoss


@functools.lru_cache(maxsize=16)
def network_loss(module: nn.Module) -> PerExampleLoss:
    """Cross-entropy of a flax.linen network without state; the same function at every call.

    Example:
        >>> from jaxinf.models import MLP
        >>> network_loss(MLP((), 2)) is network_loss(MLP((), 2))
        True
    """

    def loss(params: Params, batch: Batch) -> jax.Array:
        logits = jnp.asarray(module.apply({"params": params}, batch["x"]))
        return cross_entropy(logits, batch)

    return loss


def train_models(
    module: nn.Module,
    train: Batch,
    num_classes: int,
    *,
    num_models: int = 1,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    key: jax.Array,
    traced: bool = True,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> Params:
    """Train networks on all examples from independent starts.

    One of many epochs is the `params` of `Evidence`; several of one or two epochs are its
    `checkpoints`: models that have begun to learn fit the right labels before the wrong ones.

    Args:
        module: without state, such as BatchNorm statistics.
        train: `{"x": [N, ...], "y": int[N]}`.
        num_classes: C, the module's outputs.
        num_models: how many.
        optimizer: optax gradient transformation.
        num_epochs: passes over the examples.
        batch_size: of training.
        key: start and order of each model.
        traced: as in `cross_fit`.
        store: as in `cross_fit`.
        progress: show a bar.

    Returns:
        Parameters with a leading axis `num_models`.

    Raises:
        InputError: for examples or counts that cannot be used, or a module with state.

    Example:
        >>> from jaxinf.models import MLP
        >>> train = {"x": np.eye(4, dtype=np.float32), "y": np.array([0, 1, 0, 1])}
        >>> models = train_models(MLP((), 2), train, 2, num_models=3, optimizer=optax.sgd(0.1),
        ...     num_epochs=1, batch_size=2, key=jax.random.key(0), progress=False)
        >>> models["linear"]["kernel"].shape
        (3, 4, 2)
    """
    check_count(num_models, "num_models")
    x, y = labelled_arrays(train, num_classes)
    if set(jax.eval_shape(module.init, key, jnp.asarray(x[:1]))) != {"params"}:
        raise InputError("the module keeps state beside its parameters: choose one without")
    trainer = make_trainer(module, x, y, optimizer, num_epochs, batch_size)
    params, _ = retrain_on_subsets(
        trainer,
        np.ones((num_models, len(y)), bool),
        key=key,
        traced=traced,
        models_at_once=num_models if traced else None,
        store=store,
        progress=progress,
    )
    return params


def make_trainer(
    module: nn.Module,
    x: np.ndarray,
    y: np.ndarray,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
) -> Partial:
    """A `train_fn(key, rows) -> (params, state)` of `retrain_on_subsets`.

    The data are arguments of one function, so that compiled programs serve every set of a shape.
    """
    train_fn = _train_fn(module, optimizer, num_epochs, batch_size, x.shape[1:], str(x.dtype))
    return Partial(train_fn, {"x": jnp.asarray(x), "y": jnp.asarray(y)})


def labelled_arrays(train: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a training set, checked; floating inputs as float32.

    Raises:
        InputError: for another structure, no examples, NaN inputs or labels out of range.

    Example:
        >>> labelled_arrays({"x": np.zeros((2, 1)), "y": np.array([0, 1])}, 2)[1]
        array([0, 1], dtype=int32)
    """
    check_count(num_classes, "num_classes", 2)
    if not isinstance(train, dict) or not {"x", "y"} <= set(train):
        raise InputError("train must be a dict with 'x' and 'y', one leading axis for both")
    x, y = np.asarray(train["x"]), np.asarray(train["y"])
    x = x.astype(np.float32) if x.dtype.kind == "f" else x
    if y.shape != x.shape[:1]:
        raise InputError(f"inputs {list(x.shape)} and labels {list(y.shape)}: one label each")
    check_examples({"x": x, "y": y}, "train")
    check_finite(x, "train['x']", first_row=0)
    check_labels(y, num_classes, "train['y']")
    return x, y.astype(np.int32)


@functools.lru_cache(maxsize=16)
def _train_fn(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    shape: tuple[int, ...],
    dtype: str,
) -> Callable[..., Any]:
    like = {"x": np.zeros((1, *shape), dtype), "y": np.zeros(1, np.int32)}

    def init(key: jax.Array) -> tuple[Params, Any]:
        variables = dict(module.init(key, jnp.asarray(like["x"])))
        return variables.pop("params"), variables

    variables = module.init(jax.random.key(0), jnp.asarray(like["x"]))
    loss, _ = stateful_from_linen(module, variables, cross_entropy)
    return sgd_trainer(
        loss, init, like, optimizer=optimizer, num_epochs=num_epochs, batch_size=batch_size
    ).func
