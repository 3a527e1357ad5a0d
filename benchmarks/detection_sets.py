"""Real data sets for `benchmarks.lava_detection`, each with its embedder and its corruptions.

Everything but the digits lies in a folder of data sets beside the repository.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinf import datasets
from jaxinf.datasets import (
    blend_trigger,
    duplicate_within,
    feature_collision,
    feature_noise,
    irrelevant_examples,
    patch_trigger,
    symmetric_label_noise,
    trojan_square,
    trojan_watermark,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TABULAR = ("adult", "spambase", "phoneme", "magic", "letter", "satimage")
RATE = 0.2
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Sides = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


class Benchmark(NamedTuple):
    """One data set.

    Attributes:
        draw: seed -> (training examples, validation examples) as stored.
        embed: (training inputs, validation inputs) -> features of both, float32.
        corruptions: names of `CORRUPTIONS` that make sense on it.
        foreign: seed -> inputs of another data set, for irrelevant examples.
    """

    draw: Callable[[int], Sides]
    embed: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    corruptions: tuple[str, ...]
    foreign: Callable[[int], np.ndarray]


def split(x: np.ndarray, y: np.ndarray, train: int, valid: int, seed: int) -> Sides:
    """A random training and validation set."""
    rows = np.random.default_rng(seed).permutation(len(x))[: train + valid]
    part = lambda rows: {"x": x[rows], "y": y[rows].astype(np.int32)}
    return part(rows[:train]), part(rows[train:])


def flat(train: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw inputs as one row each."""
    rows = lambda x: x.reshape(len(x), -1).astype(np.float32)
    return rows(train), rows(valid)


def scaled(train: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and standard deviation 1, by the training set."""
    from jaxinf.valuation import standardise

    found = standardise(*flat(train, valid))
    return found.train, found.valid


# -- what is done to the training set: (examples, foreign inputs, feature_fn, seed) -> truth


def _poisoned(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    target = train["x"][train["y"] == 1][0]
    found = feature_collision(
        train,
        target,
        lambda x: x.reshape(len(x), -1),
        base_class=0,
        count=int((train["y"] == 0).sum() * 0.5),
        max_change=0.25,
        seed=seed,
    )
    return found.examples, found.is_poisoned


def _blended(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    pattern = np.random.default_rng(0).uniform(size=train["x"].shape[1:]).astype(np.float32)
    return _pair(blend_trigger(train, RATE / 2, 0, pattern, alpha=0.2, seed=seed))


def _duplicated(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    found = duplicate_within(train, round(RATE * len(train["y"])), seed=seed)
    return found.examples, found.source >= 0


CORRUPTIONS: dict[str, Callable[[Any, np.ndarray, int], tuple[dict, np.ndarray]]] = {
    "wrong labels": lambda t, _, s: _pair(symmetric_label_noise(t, RATE, _classes(t), seed=s)),
    "noisy features": lambda t, _, s: _pair(feature_noise(t, RATE, 1.0, seed=s)),
    "irrelevant": lambda t, f, s: _pair(irrelevant_examples(t, f, RATE, seed=s)),
    "backdoor, patch": lambda t, _, s: _pair(patch_trigger(t, RATE / 2, 0, seed=s)),
    "backdoor, blend": lambda t, _, s: _blended(t, s),
    "trojan, square": lambda t, _, s: _pair(trojan_square(t, RATE / 2, 0, seed=s)),
    "trojan, watermark": lambda t, _, s: _pair(trojan_watermark(t, RATE / 2, 0, seed=s)),
    "poisoned": lambda t, _, s: _poisoned(t, s),
    "duplicated": lambda t, _, s: _duplicated(t, s),
}
ON_IMAGES = tuple(CORRUPTIONS)
ON_ROWS = ("wrong labels", "noisy features", "irrelevant", "duplicated")


def _classes(train: dict[str, np.ndarray]) -> int:
    return int(train["y"].max()) + 1


def _pair(found: Any) -> tuple[dict, np.ndarray]:
    truth = next(name for name in vars(found) if name.startswith("is_"))
    return found.examples, getattr(found, truth)


# -- the sets


def _digits(seed: int) -> Sides:
    train, test = datasets.load_digits()
    x, y = (np.concatenate([train[key], test[key]]) for key in ("x", "y"))
    return split(x.astype(np.float32), y, 1200, 400, seed)


@functools.cache
def _idx(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return file["x_train"][:20000, ..., None], file["y_train"][:20000]


def _fashion(seed: int) -> Sides:
    x, y = _idx("fashion_mnist")
    train, valid = split(x, y, 1000, 300, seed)
    for side in (train, valid):
        side["x"] = side["x"].astype(np.float32) / 255
    return train, valid


def _mnist_images(seed: int) -> np.ndarray:
    x, _ = _idx("mnist")
    rows = np.random.default_rng(seed).choice(len(x), 1000, replace=False)
    return x[rows].astype(np.float32) / 255


@functools.cache
def _cifar() -> tuple[np.ndarray, np.ndarray]:
    train = datasets.read_jpeg_pack(DATA / "cifar10_jpeg.npz", range(6000))
    return train["x"].astype(np.float32) / 255, train["y"]


@functools.cache
def _resnet() -> tuple[Any, Any]:
    from jaxinf.models import load_cifar_resnet
    from jaxinf.valuation import hidden_layer

    module, variables = load_cifar_resnet(DATA / "akamaster_resnet20_cifar10.npz")
    return hidden_layer(module, mean=CIFAR_MEAN, std=CIFAR_STD), variables


def _by_resnet(train: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from jaxinf.valuation import embed

    features, variables = _resnet()
    side = lambda x: embed(features, variables, {"x": x}, batch_size=250)
    return side(train), side(valid)


@functools.cache
def _questions(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sentences as 100 components of TF-IDF, fitted on all sentences."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    sentences = [row["text"] for row in rows]
    tokens = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    weights = tokens.fit_transform(sentences)
    found = TruncatedSVD(100, random_state=0).fit_transform(weights)
    _, y = np.unique([row["label"] for row in rows], return_inverse=True)
    return found.astype(np.float32), y.astype(np.int32)


def _text(name: str, seed: int) -> Sides:
    return split(*_questions(name), 1000, 300, seed)


@functools.cache
def _table(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(DATA / "pmlb_tabular.npz") as file:
        x, y = file[f"X_{name}"], file[f"y_{name}"]
    _, y = np.unique(y, return_inverse=True)
    return x.astype(np.float32), y.astype(np.int32)


def _tabular(name: str, seed: int) -> Sides:
    return split(*_table(name), 1000, 300, seed)


def _noise_like(draw: Callable[[int], Sides]) -> Callable[[int], np.ndarray]:
    """Columns shuffled each on its own: the same margins, no relation left."""

    def foreign(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed + 10_000)
        return rng.permuted(draw(seed)[0]["x"], axis=0)

    return foreign


def _rows_set(draw: Callable[[int], Sides], embed: Any) -> Benchmark:
    return Benchmark(draw, embed, ON_ROWS, _noise_like(draw))


def _cifar_split(seed: int) -> Sides:
    return split(*_cifar(), 1000, 300, seed)


def benchmarks() -> dict[str, Benchmark]:
    """All sets, by name."""
    images_of_digits = lambda seed: np.random.default_rng(seed).permuted(
        _digits(seed)[0]["x"], axis=0
    )
    fashion_in_colour = lambda seed: np.repeat(
        np.pad(_fashion(seed)[0]["x"], ((0, 0), (2, 2), (2, 2), (0, 0))), 3, axis=3
    )
    found = {
        "digits": Benchmark(_digits, flat, ON_IMAGES, images_of_digits),
        "fashion_mnist": Benchmark(_fashion, flat, ON_IMAGES, _mnist_images),
        "cifar10": Benchmark(_cifar_split, _by_resnet, ON_IMAGES, fashion_in_colour),
    }
    for name in ("trec",):
        found[name] = _rows_set(functools.partial(_text, name), flat)
    for name in TABULAR:
        found[name] = _rows_set(functools.partial(_tabular, name), scaled)
    return found
