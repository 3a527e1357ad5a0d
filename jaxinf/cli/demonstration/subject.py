"""A network trained on digits whose faults are known, because they were planted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.datasets import (
    load_digits,
    plant_duplicates,
    symmetric_label_noise,
)
from jaxinf.errors import InputError
from jaxinf.models import BatchNormCNN, cross_entropy, fit, predict
from jaxinf.typing import PerExampleLoss, PyTree

NUM_CLASSES = 10
_BATCH = 64
_WIDTHS = (16, 32, 32)


@dataclass(frozen=True)
class Settings:
    """What the demonstration can be asked to change.

    Attributes:
        seed: of the split, the planted faults, the network and the order of training.
        epochs: passes over the training set.
        num_leaked: training examples copied into the test set.
        noise: share of the training labels that are made wrong.
        num_train: training examples used; None for all 1,437.
    """

    seed: int = 0
    epochs: int = 8
    num_leaked: int = 100
    noise: float = 0.1
    num_train: int | None = None


@dataclass(frozen=True)
class Subject:
    """The trained network, its data, and the truth about both.

    Attributes:
        module: the network.
        variables: its parameters and BatchNorm statistics.
        loss_fn: per-example loss in evaluation mode; `params` goes with it.
        params: what is differentiated.
        stateful_loss: the loss that also has a train mode; `state` goes with it.
        state: the BatchNorm statistics.
        train: the training set as trained on, planted labels and all.
        true_labels: int[N], the training labels before any was changed.
        is_wrong: bool[N], which training labels were changed.
        leaked: the copies of training examples that stand in the test set.
        source: int[num_leaked], the training row each is a copy of.
        trusted: clean held-out examples, to judge training labels by.
        ordinary: the other clean held-out examples.
        figures: accuracies and the like, by name.
        seed: that everything was drawn from.
    """

    module: BatchNormCNN
    variables: dict[str, PyTree]
    loss_fn: PerExampleLoss
    params: PyTree
    stateful_loss: Any
    state: PyTree
    train: dict[str, np.ndarray]
    true_labels: np.ndarray
    is_wrong: np.ndarray
    leaked: dict[str, np.ndarray]
    source: np.ndarray
    trusted: dict[str, np.ndarray]
    ordinary: dict[str, np.ndarray]
    figures: dict[str, float]
    seed: int

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predicted classes int[N]."""
        return predict(self.module, self.variables, x).argmax(axis=1)

    def features(self, params: PyTree, batch: Mapping[str, Any]) -> jax.Array:
        """Penultimate features float[B, D], as `representation_similarity` wants them."""
        variables = {"params": params, **self.state}
        return self.module.apply(variables, batch["x"], method="features")  # pyright: ignore[reportReturnType]


def train_subject(settings: Settings, *, progress: bool = True) -> Subject:
    """Plant the faults and train on them.

    Raises:
        InputError: for settings that leave nothing to train on or nothing to find.
    """
    if settings.seed < 0:
        raise InputError(f"--seed is {settings.seed}: 0 or more")
    # one seed for each draw: the same one twice would leak the very examples it mislabels
    split, noise, leak, network = np.random.SeedSequence(settings.seed).generate_state(4).tolist()
    clean, held_out = load_digits(seed=split)
    clean = _first(clean, settings)
    _check(settings, len(clean["y"]))
    noisy = symmetric_label_noise(clean, settings.noise, NUM_CLASSES, noise)
    half = len(held_out["y"]) // 2
    trusted = {key: value[:half] for key, value in held_out.items()}
    ordinary = {key: value[half:] for key, value in held_out.items()}
    test = plant_duplicates(noisy.examples, ordinary, settings.num_leaked, leak)
    is_copy = test.source >= 0

    init_key, fit_key = jax.random.split(jax.random.key(network))
    module = BatchNormCNN(widths=_WIDTHS, num_classes=NUM_CLASSES)
    variables = module.init(init_key, noisy.examples["x"][:2])
    stateful_loss, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    steps = settings.epochs * (len(clean["y"]) // _BATCH)
    trained = fit(
        stateful_loss,
        params,
        state,
        noisy.examples,
        optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9),
        num_epochs=settings.epochs,
        batch_size=_BATCH,
        key=fit_key,
        progress=progress,
    )
    variables = {"params": trained.params, **trained.state}
    loss_fn, params = from_linen(module, variables, cross_entropy, train=False)

    def accuracy(examples: dict[str, np.ndarray]) -> float:
        return float((predict(module, variables, examples["x"]).argmax(1) == examples["y"]).mean())

    return Subject(
        module=module,
        variables=variables,
        loss_fn=loss_fn,
        params=params,
        stateful_loss=stateful_loss,
        state=trained.state,
        train=noisy.examples,
        true_labels=noisy.original_labels,
        is_wrong=noisy.is_flipped,
        leaked={key: value[is_copy] for key, value in test.examples.items()},
        source=test.source[is_copy],
        trusted=trusted,
        ordinary=ordinary,
        figures={
            "training_accuracy_as_labelled": accuracy(noisy.examples),
            "training_accuracy_true_labels": accuracy(clean),
            "test_accuracy": accuracy(ordinary),
        },
        seed=settings.seed,
    )


def _first(clean: dict[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    if settings.num_train is None:
        return clean
    return {key: value[: settings.num_train] for key, value in clean.items()}


def _check(settings: Settings, count: int) -> None:
    if settings.epochs < 1:
        raise InputError(f"--epochs is {settings.epochs}: at least 1")
    if settings.num_train is not None and not _BATCH <= settings.num_train <= count:
        raise InputError(f"--train-size is {settings.num_train}: {_BATCH} to {count} digits")
    if not 1 <= settings.num_leaked <= count:
        raise InputError(f"--leaked is {settings.num_leaked}: 1 to {count}, the training examples")
    if not 1 <= round(settings.noise * count) < count:
        raise InputError(
            f"--noise is {settings.noise}: a share above 0 and below 1 that changes a label or more"
        )
