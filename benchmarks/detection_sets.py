"""Real data sets for `benchmarks.lava_detection`, each with its embedder and its corruptions.

Everything but the digits lies in a folder of data sets beside the repository.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf import datasets

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TABULAR = ("adult", "spambase", "phoneme", "magic", "letter", "satimage")
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FeatureFn = Callable[[Any], jax.Array]
Sides = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


class Benchmark(NamedTuple):
    """One data set.

    Attributes:
        draw: seed -> (training examples, validation examples) as stored.
        embed: (training inputs, validation inputs) -> features of both, float32.
        corruptions: names of `CORRUPTIONS` that make sense on it.
        foreign: seed -> inputs of another data set, for irrelevant examples.
        network: (validation examples, seed) -> the hidden layer that poisons are made against.
        max_change: the most by which a poison changes an input.
    """

    draw: Callable[[int], Sides]
    embed: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    corruptions: tuple[str, ...]
    foreign: Callable[[int], np.ndarray]
    network: Callable[[dict[str, np.ndarray], int], FeatureFn] | None = None
    max_change: float = 0.0


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


ON_IMAGES = (
    "wrong labels",
    "noisy features",
    "irrelevant",
    "backdoor, patch",
    "backdoor, blend",
    "trojan, square",
    "trojan, watermark",
    "poisoned",
    "poisoned, pixels",
    "duplicated",
    "one class too many",
    "noisy supplier",
)
ON_ROWS = (
    "wrong labels",
    "noisy features",
    "irrelevant",
    "duplicated",
    "one class too many",
    "noisy supplier",
)


def trained_on(hidden: tuple[int, ...], valid: dict[str, np.ndarray], seed: int) -> FeatureFn:
    """The last hidden layer of a small network that has learnt the validation set."""
    import optax

    from jaxinf.adapters import stateful_from_linen
    from jaxinf.models import MLP, cross_entropy, fit

    module = MLP(hidden, int(valid["y"].max()) + 1)
    variables = module.init(jax.random.key(seed), valid["x"][:1])
    loss, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    trained = fit(
        loss,
        params,
        state,
        valid,
        optimizer=optax.adam(1e-3),
        num_epochs=60,
        batch_size=50,
        key=jax.random.key(seed),
        progress=False,
    )
    weights = {"params": trained.params}
    return lambda x: jnp.asarray(module.apply(weights, x, method="features"))


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


def _hidden_of_resnet(*_: Any) -> FeatureFn:
    features, variables = _resnet()
    return lambda x: features(variables, jnp.asarray(x))


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
    small, large = (functools.partial(trained_on, widths) for widths in ((64,), (256, 64)))
    found = {
        "digits": Benchmark(_digits, flat, ON_IMAGES, images_of_digits, small, 0.25),
        "fashion_mnist": Benchmark(_fashion, flat, ON_IMAGES, _mnist_images, large, 0.1),
        "cifar10": Benchmark(
            _cifar_split, _by_resnet, ON_IMAGES, fashion_in_colour, _hidden_of_resnet, 16 / 255
        ),
    }
    for name in ("trec",):
        found[name] = _rows_set(functools.partial(_text, name), flat)
    for name in TABULAR:
        found[name] = _rows_set(functools.partial(_tabular, name), scaled)
    return found
