"""Models of the diffusion benchmark: the base, its customised copies, and a classifier's features.

Attribution by customisation (Wang et al., Evaluating Data Attribution for Text-to-Image Models,
ICCV 2023): a copy of the base model is tuned on a few exemplars, so what its images come from is
known. The exemplars are held-out images of one class, which the copy is tuned to generate.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxinf.adapters import stateful_from_linen
from jaxinf.datasets import load_digits, read_npz
from jaxinf.models import (
    BatchNormCNN,
    cross_entropy,
    fit,
    load_variables,
    predict,
    save_variables,
)
from jaxinf.models.diffusion import EDM, fit_edm, init_params, load_edm, sample, save_edm


@dataclass(frozen=True)
class Setup:
    """Sizes of one run; the defaults are those of the committed results."""

    data: str = "fashion_mnist"
    size: int = 28
    widths: tuple[int, ...] = (32, 64, 64)
    held_out: int = 10_000
    base_steps: int = 6_000
    base_batch: int = 256
    exemplars: int = 4
    images: int = 4
    candidates: int = 1_000
    others_held_out: int = 200
    draws: int = 16
    tune_rate: float = 3e-4
    tune_batch: int = 32
    sampler_steps: int = 18


QUICK = Setup(
    data="digits",
    size=8,
    widths=(8,),
    held_out=400,
    base_steps=20,
    base_batch=64,
    exemplars=2,
    images=2,
    candidates=40,
    others_held_out=8,
    draws=2,
    tune_batch=8,
    sampler_steps=4,
)


def load_images(setup: Setup, folder: Path) -> dict[str, np.ndarray]:
    """Images float32[N, H, W, 1] in [−1, 1] with their classes, in an order drawn once."""
    if setup.data == "digits":
        train, _ = load_digits(seed=0)
        x = train["x"].reshape(-1, 8, 8, 1)
        x = (x - x.min()) / (x.max() - x.min())
        found = {"x": x, "y": train["y"]}
    else:
        found = read_npz(folder / f"{setup.data}.npz")
        x = found["x"].astype(np.float32) / 255
        if setup.size < x.shape[1]:  # a coarser set for a processor without an accelerator
            factor = x.shape[1] // setup.size
            x = x.reshape(len(x), setup.size, factor, setup.size, factor, 1).mean(axis=(2, 4))
        found = {"x": x, "y": found["y"]}
    order = np.random.default_rng(0).permutation(len(found["y"]))
    x = (2 * found["x"] - 1).astype(np.float32)
    return {"x": x[order], "y": found["y"][order].astype(np.int32)}


def base_model(setup: Setup, images: dict[str, np.ndarray]) -> EDM:
    """The base model, without its weights."""
    scale = round(float(images["x"][:2000].std()), 2)
    shape = images["x"].shape[1:]
    return EDM(shape, num_classes=10, widths=setup.widths, sigma_data=scale)


def train_base(
    setup: Setup, images: dict[str, np.ndarray], folder: Path | None, progress: bool
) -> tuple[EDM, Any, float | None]:
    """The base model, its weights and its last loss; from `folder`, without a loss, if there."""
    if folder is not None and (folder / "edm.json").exists():
        return *load_edm(folder), None
    model = base_model(setup, images)
    seen = {name: a[setup.held_out :] for name, a in images.items()}
    params, losses = fit_edm(
        model,
        init_params(model, jax.random.key(0)),
        seen,
        num_steps=setup.base_steps,
        batch_size=setup.base_batch,
        key=jax.random.key(1),
        learning_rate=1e-3,
        warmup=min(200, setup.base_steps // 4),
        progress=progress,
    )
    if folder is not None:
        save_edm(folder, model, params)
    return model, params, float(losses[-1])


@dataclass(frozen=True)
class CustomisedSet:
    """One class, its exemplars and the candidates that they hide among.

    Attributes:
        label: the class of all of them.
        exemplars: what the copy is tuned on.
        candidates: exemplars, other held-out images, and images that the base was trained on.
        relevant: bool[N], which candidates are exemplars.
    """

    label: int
    exemplars: dict[str, np.ndarray]
    candidates: dict[str, np.ndarray]
    relevant: np.ndarray


def draw_set(setup: Setup, images: dict[str, np.ndarray], seed: int) -> CustomisedSet:
    """Exemplars and candidates, all of one class, in an order of their own."""
    rng = np.random.default_rng(seed)
    label = seed % 10
    of_class = np.flatnonzero(images["y"] == label)
    held_out = rng.permutation(of_class[of_class < setup.held_out])
    seen = rng.permutation(of_class[of_class >= setup.held_out])
    chosen = held_out[: setup.exemplars]
    others = held_out[setup.exemplars : setup.others_held_out]
    rows = np.concatenate([chosen, others, seen])[: setup.candidates]
    order = rng.permutation(len(rows))
    take = lambda rows: {name: a[rows] for name, a in images.items()}
    return CustomisedSet(label, take(chosen), take(rows[order]), order < len(chosen))


def customise(
    setup: Setup, model: EDM, base: Any, chosen: CustomisedSet, steps: int, seed: int
) -> Any:
    """Weights after so many steps on the exemplars."""
    tuned, _ = fit_edm(
        model,
        base,
        chosen.exemplars,
        num_steps=steps,
        batch_size=setup.tune_batch,
        key=jax.random.key(1000 + seed),
        learning_rate=setup.tune_rate,
        ema_decay=0.0,
        progress=False,
    )
    return tuned


def generate(setup: Setup, model: EDM, params: Any, label: int, seed: int) -> dict[str, np.ndarray]:
    """Images of the class; the same seed starts from the same noise under any weights."""
    labels = np.full(setup.images, label, np.int32)
    key = jax.random.key(2000 + seed)
    x = sample(model, params, labels, key, num_steps=setup.sampler_steps)
    return {"x": x, "y": labels}


def train_classifier(
    setup: Setup, images: dict[str, np.ndarray], folder: Path | None, progress: bool
) -> tuple[nn.Module, Any, float]:
    """A small network that tells the classes apart, its variables, and its held-out accuracy."""
    module = BatchNormCNN(widths=(32, 64, 64))
    variables = module.init(jax.random.key(0), images["x"][:1])
    stateful, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    seen = {name: a[setup.held_out :] for name, a in images.items()}
    kept = None if folder is None else folder / "classifier"
    epochs = 1 if setup.data == "digits" else 5
    steps = epochs * (len(seen["y"]) // setup.base_batch)
    if kept is None or not kept.exists():
        variables = _fit_classifier(setup, stateful, params, state, seen, epochs, steps, progress)
        if kept is not None:
            save_variables(kept, variables)
    else:
        variables = load_variables(kept, like=variables)
    held_out = {name: a[: min(2000, setup.held_out)] for name, a in images.items()}
    guesses = predict(module, variables, held_out["x"]).argmax(1)
    return module, variables, float(np.mean(guesses == held_out["y"]))


def _fit_classifier(
    setup: Setup,
    stateful: Any,
    params: Any,
    state: Any,
    seen: dict[str, np.ndarray],
    epochs: int,
    steps: int,
    progress: bool,
) -> Any:
    fitted = fit(
        stateful,
        params,
        state,
        seen,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        num_epochs=epochs,
        batch_size=setup.base_batch,
        key=jax.random.key(1),
        progress=progress,
    )
    return {"params": fitted.params, **fitted.state}


@functools.lru_cache(maxsize=4)
def classifier_features(module: nn.Module) -> Any:
    """`(variables, batch) -> float[B, d]`, the features before the last layer."""
    return lambda variables, batch: module.apply(variables, batch["x"], method="features")
