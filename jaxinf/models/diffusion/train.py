"""Training and fine-tuning of an EDM, with an exponential moving average of the weights."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.errors import InputError, check_examples, check_labels
from jaxinf.models.diffusion.edm import EDM, P_MEAN, P_STD, weighted_error
from jaxinf.models.train import TrainResult, fit
from jaxinf.typing import Batch, Params, PyTree


def fit_edm(
    model: EDM,
    params: Params,
    data: Batch,
    *,
    num_steps: int,
    batch_size: int,
    key: jax.Array,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.999,
    warmup: int = 0,
    checkpoints: str | Path | None = None,
    progress: bool = True,
) -> tuple[Params, np.ndarray]:
    """Train on the denoising loss with Adam; also fine-tunes, from trained parameters.

    Each example meets one noise level and one noise per step. The same arguments give the same
    weights.

    Args:
        model: what is trained.
        params: where to start.
        data: `{"x": float[N, H, W, c] in [−1, 1], "y": int[N]}`.
        num_steps: updates, rounded up to whole epochs of N // batch_size updates.
        batch_size: B. Where it is larger than N, examples are repeated: each then meets several
            noise levels per step.
        key: random key.
        learning_rate: of Adam, constant after `warmup` steps.
        ema_decay: of the average; 0 returns the last weights.
        warmup: steps over which the learning rate rises.
        checkpoints: folder that a killed run continues from.
        progress: show a bar on stderr.

    Returns:
        The averaged weights, and the mean loss of each epoch float32[num_epochs].

    Raises:
        InputError: images of another shape than the model's, classes out of range, or settings
            that mean nothing.

    Example:
        >>> model = EDM((4, 4, 1), num_classes=1, widths=(8,))
        >>> data = {"x": np.zeros((2, 4, 4, 1), np.uint8), "y": np.zeros(2, np.int32)}
        >>> fit_edm(model, {}, data, num_steps=2, batch_size=2, key=jax.random.key(1))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: data['x'] is uint8: scale the images to floats in [-1, 1]
    """
    count = check_images(data, model)
    if num_steps < 1 or batch_size < 1:
        raise InputError(f"num_steps is {num_steps}, batch_size {batch_size}: at least 1 each")
    if not 0 <= ema_decay < 1:
        raise InputError(f"ema_decay is {ema_decay}: it must lie in [0, 1)")
    data = {"x": np.asarray(data["x"]), "y": np.asarray(data["y"], np.int32)}
    if batch_size > count:
        rows = np.resize(np.arange(count), batch_size)
        data, count = {name: a[rows] for name, a in data.items()}, batch_size
    per_epoch = count // batch_size
    done: TrainResult = fit(
        training_loss(model),  # pyright: ignore[reportArgumentType] - modules have a hash
        params,
        {},
        data,
        optimizer=_optimizer(learning_rate, ema_decay, warmup),
        num_epochs=-(-num_steps // per_epoch),
        batch_size=batch_size,
        key=key,
        checkpoints=checkpoints,
        checkpoint_every=max(1, 500 // per_epoch),
        progress=progress,
    )
    return done.opt_state.average, done.losses


@functools.lru_cache(maxsize=16)
def training_loss(model: EDM) -> Any:
    """`loss(params, state, batch, *, train, key) -> (float[B], state)` at random noise levels.

    The same object for the same model, since `fit` compiles once for each.
    """

    def loss(
        params: Params, state: PyTree, batch: Batch, *, train: bool, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        level_key, noise_key = jax.random.split(key)
        x = batch["x"]
        sigma = jnp.exp(P_MEAN + P_STD * jax.random.normal(level_key, (len(x),)))
        noise = jax.random.normal(noise_key, x.shape)
        return weighted_error(model, params, x, noise, sigma, batch["y"]), state

    return loss


class AveragedState(NamedTuple):
    """The inner optimiser's state, the average of the weights, and the number of updates."""

    inner: Any
    average: Params
    steps: jax.Array


def with_average(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """An optimiser that also keeps an exponential moving average of the weights in its state.

    Early on the decay is (1 + n) / (10 + n) after n updates where that is smaller, so that the
    initial weights are soon forgotten.

    Example:
        >>> averaged = with_average(optax.sgd(1.0), 0.0)
        >>> state = averaged.init(jnp.ones(1))
        >>> averaged.update(jnp.ones(1), state, jnp.ones(1))[1].average.tolist()
        [0.0]
    """

    def init(params: Params) -> AveragedState:
        average = jax.tree.map(jnp.array, params)
        return AveragedState(optimizer.init(params), average, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AveragedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        moved = optax.apply_updates(params, updates)
        now = jnp.minimum(decay, (1 + state.steps) / (10 + state.steps))
        average = jax.tree.map(lambda a, p: now * a + (1 - now) * p, state.average, moved)
        return updates, AveragedState(inner, average, state.steps + 1)

    return optax.GradientTransformation(init, update)


@functools.lru_cache(maxsize=16)
def _optimizer(learning_rate: float, decay: float, warmup: int) -> optax.GradientTransformation:
    """The same object for the same settings, since `fit` compiles once for each."""
    schedule = optax.linear_schedule(0.0, learning_rate, warmup) if warmup else learning_rate
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    return with_average(adam, decay)


def check_images(data: Batch, model: EDM, name: str = "data") -> int:
    """Refuse images or classes that are not the model's; return how many there are.

    Raises:
        InputError: naming what does not fit.

    Example:
        >>> data = {"x": np.zeros((1, 4, 4, 1), np.float32), "y": np.array([3])}
        >>> check_images(data, EDM((4, 4, 1), num_classes=2))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: data['y'][0] is 3, out of range for 2 classes (0 to 1)
    """
    if not isinstance(data, dict) or set(data) != {"x", "y"}:
        raise InputError(f"{name} must be a dict with x, the images, and y, their classes")
    count = check_examples(data, name)
    shape, dtype = np.shape(data["x"])[1:], np.asarray(data["x"][:1]).dtype
    if dtype.kind != "f":
        raise InputError(f"{name}['x'] is {dtype}: scale the images to floats in [-1, 1]")
    if shape != tuple(model.image_shape):
        raise InputError(
            f"{name}['x'] has images of shape {shape}, but the model's are "
            f"{tuple(model.image_shape)}: resize them"
        )
    check_labels(data["y"], model.num_classes, f"{name}['y']")
    return count
