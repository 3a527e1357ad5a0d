"""What `benchmarks.leakage_kinds` asks about: data with planted copies, and models trained on them.

The queries of a subject lie in this order: reference, calibration and clean ones (all drawn from
the test set, which the models never saw), then the copies, kind after kind.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.datasets import load_digits, normalise, plant_kinds, read_jpeg_pack
from jaxinf.models import (
    BatchNormCNN,
    ResNet18,
    cross_entropy,
    fit,
    load_cifar_resnet,
    predict,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_CLASSES = 10


class Sizes(NamedTuple):
    """How much of everything.

    Attributes:
        train: training examples, all of them candidates.
        copies: of each kind.
        reference: clean queries that take part in directions.
        calibration: clean queries that make p-values.
        clean: clean queries that are judged.
        epochs: of training, where there is any.
        stepped: copies of each kind that methods with a pass per query are given; 0 gives them
            all queries.
        stepped_clean: how many clean queries of either sort they are given.
    """

    train: int
    copies: int
    reference: int
    calibration: int
    clean: int
    epochs: int
    stepped: int = 0
    stepped_clean: int = 0


class Subject(NamedTuple):
    """A model, what it was trained on, and what it is asked.

    Attributes:
        train: model inputs and labels, N.
        queries: the same of K queries.
        train_stored: the images before normalisation, in [0, 1].
        query_stored: the same of the queries.
        kind: of each query, "" for clean ones.
        source: row of the training set, -1 for clean ones.
        parts: rows of `"reference"`, `"calibration"`, `"clean"` and `"copies"`.
        module: the network.
        params: what is differentiated.
        state: its BatchNorm statistics.
        loss_fn: per-example loss in evaluation mode.
        stateful: the same for train mode.
        fit: accuracies and losses.
    """

    train: dict[str, np.ndarray]
    queries: dict[str, np.ndarray]
    train_stored: np.ndarray
    query_stored: np.ndarray
    kind: np.ndarray
    source: np.ndarray
    parts: dict[str, np.ndarray]
    module: Any
    params: Any
    state: Any
    loss_fn: Any
    stateful: Any
    fit: dict[str, float]


def digits(sizes: Sizes, seed: int) -> Subject:
    """Digits and a small BatchNorm network, trained until the data is fitted."""
    train, test = load_digits(test_fraction=0.4, seed=seed)
    train = {key: value[: sizes.train] for key, value in train.items()}
    identity = lambda x: x
    module = BatchNormCNN(widths=(16, 32, 32))
    return _subject(train, test, sizes, seed, identity, identity, module, batch_size=64)


def resnet18(sizes: Sizes, seed: int) -> Subject:
    """CIFAR-10 and a ResNet-18 trained on part of it, without augmentation."""
    train, test = _cifar_part(sizes, seed)
    prepare = functools.partial(normalise, mean=CIFAR_MEAN, std=CIFAR_STD)
    return _subject(
        train, test, sizes, seed, prepare, _unit_range, ResNet18(), batch_size=min(128, sizes.train)
    )


def pretrained(depth: int, sizes: Sizes, seed: int) -> Subject:
    """CIFAR-10 and a published network, trained on all of it with shifts and mirror images."""
    train, test = _cifar_part(sizes, seed)
    prepare = functools.partial(normalise, mean=CIFAR_MEAN, std=CIFAR_STD)
    loaded = load_cifar_resnet(DATA / f"akamaster_resnet{depth}_cifar10.npz")
    return _subject(train, test, sizes, seed, prepare, _unit_range, loaded)


SUBJECTS: dict[str, Callable[[Sizes, int], Subject]] = {
    "digits": digits,
    "resnet18": resnet18,
    "resnet20": functools.partial(pretrained, 20),
    "resnet56": functools.partial(pretrained, 56),
}


@functools.cache
def _cifar() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    stored = read_jpeg_pack(DATA / "cifar10_jpeg.npz", range(60000))
    train, test = (
        {key: value[rows] for key, value in stored.items()}
        for rows in (slice(50000), slice(50000, None))
    )
    return train, test


def _cifar_part(sizes: Sizes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    train, test = _cifar()
    rows = np.random.default_rng(seed).permutation(50000)[: sizes.train]
    return {key: value[rows] for key, value in train.items()}, test


def _unit_range(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / 255


def _subject(
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    sizes: Sizes,
    seed: int,
    prepare: Callable[[np.ndarray], np.ndarray],
    to_stored: Callable[[np.ndarray], np.ndarray],
    network: Any,
    batch_size: int = 0,
) -> Subject:
    rng = np.random.default_rng(seed + 10_000)
    counts = (sizes.reference, sizes.calibration, sizes.clean)
    drawn = rng.permutation(len(test["y"]))[: sum(counts)]
    clean = {key: value[drawn] for key, value in test.items()}
    planted = plant_kinds(train, clean, sizes.copies, seed, num_classes=NUM_CLASSES)
    asked = planted.examples
    ends = np.cumsum((0, *counts, len(asked["y"]) - sum(counts)))
    parts = {
        name: np.arange(first, last)
        for name, first, last in zip(
            ("reference", "calibration", "clean", "copies"), ends, ends[1:], strict=False
        )
    }
    data = {"x": prepare(train["x"]), "y": train["y"]}
    module, variables = network if batch_size == 0 else (network, None)
    if variables is None:
        variables = _train(module, data, sizes.epochs, batch_size, seed)
    stateful, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    loss_fn, _ = from_linen(module, variables, cross_entropy, train=False)
    right = {
        name: float(np.mean(predict(module, variables, prepare(part["x"])).argmax(1) == part["y"]))
        for name, part in {"train_accuracy": train, "test_accuracy": clean}.items()
    }
    return Subject(
        data,
        {"x": prepare(asked["x"]), "y": asked["y"]},
        to_stored(train["x"]),
        to_stored(asked["x"]),
        planted.kind,
        planted.source,
        parts,
        module,
        params,
        state,
        loss_fn,
        stateful,
        right,
    )


def _train(
    module: Any, data: dict[str, np.ndarray], epochs: int, batch_size: int, seed: int
) -> Any:
    """SGD with momentum, no augmentation, no weight decay, as in the paper's leakage experiment."""
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    variables = module.init(init_key, data["x"][:1])
    stateful, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    steps = epochs * (len(data["y"]) // batch_size)
    fitted = fit(
        stateful,
        params,
        state,
        data,
        optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9),
        num_epochs=epochs,
        batch_size=batch_size,
        key=fit_key,
        progress=False,
    )
    return {"params": fitted.params, **fitted.state}
