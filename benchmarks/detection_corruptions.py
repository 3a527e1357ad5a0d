"""What is done to the training sets of `benchmarks.lava_detection`, with the truth about it.

Poisons by feature collision are images whose *hidden features* are those of a target of another
class, while their pixels hardly change (Shafahi et al. 2018): "poisoned" makes them against a
network and values the examples by that network's features, which is what the method is for. The
same search in pixels has no such room: "poisoned, pixels" mixes a quarter of the target into an
image, and no label is wrong afterwards.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.detection_sets import Benchmark
from jaxinf.datasets import (
    blend_trigger,
    class_imbalance,
    duplicate_within,
    feature_collision,
    feature_noise,
    irrelevant_examples,
    patch_trigger,
    split_into_sources,
    symmetric_label_noise,
    trojan_square,
    trojan_watermark,
)

RATE = 0.2


class Spoiled(NamedTuple):
    """What a method is given, and the truth.

    Attributes:
        x: float[N, d], training features.
        y: int[N].
        xv: float[M, d], validation features.
        yv: int[M].
        is_bad: bool[N], or bool[S] of suppliers.
        source: int[N], the supplier of each example, where suppliers are judged by the mean of
            their values; None where examples are judged.
    """

    x: np.ndarray
    y: np.ndarray
    xv: np.ndarray
    yv: np.ndarray
    is_bad: np.ndarray
    source: np.ndarray | None = None


def spoil(benchmark: Benchmark, corruption: str, seed: int) -> Spoiled:
    """Draw both sides, corrupt the training side, embed both."""
    train, valid = benchmark.draw(seed)
    source = None
    if corruption == "poisoned":
        assert benchmark.network is not None
        features = benchmark.network(valid, seed)
        examples, is_bad = _poisoned(train, features, benchmark.max_change, seed)
        x, xv = (np.asarray(features(side["x"])) for side in (examples, valid))
        return Spoiled(x, examples["y"], xv, valid["y"], is_bad)
    if corruption == "noisy supplier":
        # the first of five has two fifths of its labels wrong; all have a mix of classes their own
        rates = [2 * RATE, 0, 0, 0, 0]
        dealt = split_into_sources(train, 5, concentration=2.0, label_noise=rates, seed=seed)
        examples, source, is_bad = dealt.examples, dealt.source, np.arange(5) == 0
    else:
        examples, is_bad = CORRUPTIONS[corruption](train, benchmark.foreign(seed), seed)
    x, xv = benchmark.embed(examples["x"], valid["x"])
    return Spoiled(x, examples["y"], xv, valid["y"], np.asarray(is_bad), source)


def _poisoned(train: Any, features: Any, max_change: float, seed: int) -> tuple[dict, np.ndarray]:
    """Half of class 0 made to collide with one example of class 1."""
    found = feature_collision(
        train,
        train["x"][train["y"] == 1][0],
        features,
        base_class=0,
        count=int((train["y"] == 0).sum() * 0.5),
        max_change=max_change,
        seed=seed,
    )
    return found.examples, found.is_poisoned


def _blended(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    pattern = np.random.default_rng(0).uniform(size=train["x"].shape[1:]).astype(np.float32)
    return _pair(blend_trigger(train, RATE / 2, 0, pattern, alpha=0.2, seed=seed))


def _duplicated(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    found = duplicate_within(train, round(RATE * len(train["y"])), seed=seed)
    return found.examples, found.source >= 0


def _one_class_too_many(train: Any, seed: int) -> tuple[dict, np.ndarray]:
    """Three quarters of every class but one are gone; of that one there are too many."""
    classes = _classes(train)
    many = seed % classes
    fractions = np.where(np.arange(classes) == many, 1.0, 0.25)
    found = class_imbalance(train, class_fractions=fractions, seed=seed)
    return found.examples, found.examples["y"] == many


def _classes(train: dict[str, np.ndarray]) -> int:
    return int(train["y"].max()) + 1


def _pair(found: Any) -> tuple[dict, np.ndarray]:
    truth = next(name for name in vars(found) if name.startswith("is_"))
    return found.examples, getattr(found, truth)


def _pixels(x: Any) -> Any:
    return x.reshape(len(x), -1)


# (examples, foreign inputs, seed) -> (examples, bool[N])
CORRUPTIONS: dict[str, Callable[[Any, np.ndarray, int], tuple[dict, np.ndarray]]] = {
    "wrong labels": lambda t, _, s: _pair(symmetric_label_noise(t, RATE, _classes(t), seed=s)),
    "noisy features": lambda t, _, s: _pair(feature_noise(t, RATE, 1.0, seed=s)),
    "irrelevant": lambda t, f, s: _pair(irrelevant_examples(t, f, RATE, seed=s)),
    "backdoor, patch": lambda t, _, s: _pair(patch_trigger(t, RATE / 2, 0, seed=s)),
    "backdoor, blend": lambda t, _, s: _blended(t, s),
    "trojan, square": lambda t, _, s: _pair(trojan_square(t, RATE / 2, 0, seed=s)),
    "trojan, watermark": lambda t, _, s: _pair(trojan_watermark(t, RATE / 2, 0, seed=s)),
    "poisoned, pixels": lambda t, _, s: _poisoned(t, _pixels, 0.25, s),
    "duplicated": lambda t, _, s: _duplicated(t, s),
    "one class too many": lambda t, _, s: _one_class_too_many(t, s),
}
