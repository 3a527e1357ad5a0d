"""Real data with wrong labels of known truth, for `benchmarks.mislabelled`.

Four parts are drawn apart: the training set, whose labels are spoiled; a trusted set; a test set;
and examples for the model that makes human-like mistakes, which no method sees.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import detection_sets
from jaxinf import datasets
from jaxinf.datasets import (
    LabelNoise,
    asymmetric_label_noise,
    instance_dependent_label_noise,
    symmetric_label_noise,
)

KINDS = ("symmetric", "asymmetric", "human-like")


class Data(NamedTuple):
    """One set.

    Attributes:
        read: () -> inputs float32[n, ...] for the model, features float32[n, d] for methods that
            compare examples, and labels int32[n].
        sizes: examples in the training, trusted, test and confused parts.
        hidden: widths of the hidden layers; a convolutional network for None.
        development: the rows that settings may be chosen on; the others are reported on.
    """

    read: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]
    sizes: tuple[int, int, int, int]
    hidden: tuple[int, ...] | None
    development: slice = slice(0)


class Case(NamedTuple):
    """Training set with noise, trusted and test sets, all `{"x", "y", "features"}`; the truth."""

    train: dict[str, np.ndarray]
    trusted: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    truth: LabelNoise
    num_classes: int


@functools.cache
def _fashion() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(detection_sets.DATA / "fashion_mnist.npz") as file:
        x, y = file["x_train"][:30000], file["y_train"][:30000].astype(np.int32)
    x = x[..., None].astype(np.float32) / 255
    return x, x.reshape(len(x), -1), y


@functools.cache
def _cifar() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 10,000 test images: the labels of the others shaped the pretrained network."""
    found = datasets.read_jpeg_pack(detection_sets.DATA / "cifar10_jpeg.npz", range(50000, 60000))
    x = found["x"].astype(np.float32) / 255
    features, _ = detection_sets.benchmarks()["cifar10"].embed(x, x[:250])
    # of one scale, for the head's learning rate; no label is looked at
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return features, features, found["y"].astype(np.int32)


@functools.cache
def _trec() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = detection_sets._questions("trec")
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    return scaled, x, y


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = datasets.load_digits()
    x, y = (np.concatenate([np.asarray(part[key]) for part in parts]) for key in ("x", "y"))
    x = x.astype(np.float32)
    return x, x.reshape(len(x), -1), y.astype(np.int32)


def sets() -> dict[str, Data]:
    """All sets by name; the digits are for trying the script out."""
    return {
        "fashion_mnist": Data(_fashion, (2000, 300, 2000, 2000), (128,), slice(15000)),
        "cifar10": Data(_cifar, (2000, 300, 2000, 2000), ()),
        "trec": Data(_trec, (2000, 300, 1500, 1500), (64,)),
        "fashion_mnist_cnn": Data(_fashion, (2000, 300, 2000, 2000), None, slice(15000)),
        "digits": Data(_digits, (300, 60, 300, 300), (16,)),
    }


def draw(data: Data, kind: str, rate: float, seed: int, *, development: bool = False) -> Case:
    """Draw the parts and spoil the training labels, by a seed."""
    x, features, y = data.read()
    rows = np.arange(len(y))
    reserved = rows[data.development]
    pool = reserved if development else np.setdiff1d(rows, reserved)
    order = np.random.default_rng(seed).permutation(pool)
    parts = np.split(order, np.cumsum(data.sizes))[:4]
    train, trusted, test, other = (
        {"x": x[part], "y": y[part], "features": features[part]} for part in parts
    )
    classes = int(y.max()) + 1
    truth = _spoil({"x": train["x"], "y": train["y"]}, train, other, kind, rate, classes, seed)
    return Case(train | {"y": truth.examples["y"]}, trusted, test, truth, classes)


def _spoil(
    plain: dict[str, np.ndarray],
    train: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    kind: str,
    rate: float,
    classes: int,
    seed: int,
) -> LabelNoise:
    if kind == "symmetric":
        return symmetric_label_noise(plain, rate, classes, seed=seed)
    if kind == "asymmetric":
        return asymmetric_label_noise(plain, rate, classes, seed=seed)
    return instance_dependent_label_noise(
        plain, rate, _confused(train["features"], other, classes), seed=seed
    )


def _confused(features: np.ndarray, other: dict[str, np.ndarray], classes: int) -> np.ndarray:
    """Log-probabilities by a logistic regression on the examples kept apart."""
    from sklearn.linear_model import LogisticRegression

    mean, std = other["features"].mean(axis=0), other["features"].std(axis=0) + 1e-6
    scale = lambda rows: (rows - mean) / std
    model = LogisticRegression(C=0.01, max_iter=1000, tol=1e-3).fit(
        scale(other["features"]), other["y"]
    )
    found = np.full((len(features), classes), -30.0)
    found[:, model.classes_] = np.maximum(model.predict_log_proba(scale(features)), -30)
    return found
