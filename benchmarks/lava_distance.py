"""Does the class-wise distance tell, before any training, how well a model will do?

    python -m benchmarks.lava_distance [--sets digits,fashion_mnist] [--draws 60] [--quick]

LAVA's theorem bounds the validation error of a model by its training error and the distance
between the two sets. Here: many training sets of one size, each spoiled in one way to another
degree, their distance to one clean validation set, and the accuracy there of models trained on
them; the rank correlation of the two, over all and within each way of spoiling.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, cores, write_result
from benchmarks.detection_sets import DATA, benchmarks, split
from jaxinf import datasets
from jaxinf.evaluation import bootstrap_interval, spearman
from jaxinf.valuation import class_wise_distance

TRAIN = 500
DISTANCES: dict[str, dict[str, Any]] = {
    "class-wise": {},
    "features only": {"label_weight": 0.0},
}


def _wrong_labels(x: np.ndarray, y: np.ndarray, degree: float, seed: int) -> Any:
    spoiled = datasets.symmetric_label_noise(
        {"x": x, "y": y}, 0.8 * degree, int(y.max()) + 1, seed=seed
    )
    return spoiled.examples["x"], spoiled.examples["y"]


def _noisy_features(x: np.ndarray, y: np.ndarray, degree: float, seed: int) -> Any:
    spread = 2 * degree * x.std()
    return x + np.random.default_rng(seed).normal(0, spread, x.shape).astype(x.dtype), y


def _few_classes(x: np.ndarray, y: np.ndarray, degree: float, seed: int) -> Any:
    """The first half of the classes become rare; the rows stay as many."""
    shares = np.where(y <= y.max() // 2, 1 - 0.98 * degree, 1.0)
    rows = np.random.default_rng(seed).choice(len(y), TRAIN, p=shares / shares.sum())
    return x[rows], y[rows]


SPOIL: dict[str, Callable[[np.ndarray, np.ndarray, float, int], Any]] = {
    "wrong labels": _wrong_labels,
    "noisy features": _noisy_features,
    "rare classes": _few_classes,
}


def models(seed: int) -> dict[str, Any]:
    """What is trained on each set."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    # a model that is not done after this many steps is one more kind of model
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    return {
        "logistic regression": LogisticRegression(max_iter=500),
        "MLP": MLPClassifier((64,), max_iter=200, random_state=seed),
    }


def study(name: str, draws: int) -> dict[str, Any]:
    """Distances and accuracies of many training sets, and their correlations."""
    benchmark = benchmarks()[name]
    points = []
    for number in range(draws):
        spoil = list(SPOIL)[number % len(SPOIL)]
        train, valid = benchmark.draw(number)
        x, xv = benchmark.embed(train["x"], valid["x"])
        part, _ = split(np.asarray(x), train["y"], 2 * TRAIN, 0, number)
        degree = float(np.random.default_rng(number).uniform())
        x, y = SPOIL[spoil](part["x"], part["y"], degree, number)
        x, y = x[:TRAIN], y[:TRAIN]
        point: dict[str, Any] = {"spoiled by": spoil, "degree": degree}
        for kind, options in DISTANCES.items():
            point[kind] = float(class_wise_distance(x, y, xv, valid["y"], **options))
        for kind, model in models(number).items():
            point[kind] = float(model.fit(x, y).score(xv, valid["y"]))
        points.append(point)
        print(f"{name} {number}: {point}", flush=True)
    return {"set": name, "points": points, "correlations": _correlations(points)}


def _correlations(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for spoil in ("all", *SPOIL):
        chosen = [p for p in points if spoil in ("all", p["spoiled by"])]
        for distance in DISTANCES:
            for model in models(0):
                pair = tuple(np.array([p[key] for p in chosen]) for key in (distance, model))
                interval = bootstrap_interval(
                    pair, _rank_correlation, num_resamples=1000, method="percentile", seed=0
                )
                found.append(
                    {
                        "spoiled by": spoil,
                        "distance": distance,
                        "model": model,
                        "spearman": interval.estimate,
                        "interval": [interval.low, interval.high],
                        "count": len(chosen),
                    }
                )
    return found


def _rank_correlation(distances: np.ndarray, accuracies: np.ndarray) -> float:
    return float(spearman(distances[None], accuracies[None])[0])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = "digits,fashion_mnist" if DATA.is_dir() else "digits"
    parser.add_argument("--sets", default=default, help="of benchmarks.lava_detection's")
    parser.add_argument("--draws", type=int, default=60, help="training sets per data set")
    parser.add_argument("--quick", action="store_true", help="digits, nine training sets")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_distance.json")
    arguments = parser.parse_args()
    sets = ["digits"] if arguments.quick else arguments.sets.split(",")
    draws = 9 if arguments.quick else arguments.draws
    settings = {"draws": draws, "train": TRAIN, "quick": arguments.quick, "cores": cores()}
    results = []
    for name in sets:
        results.append(study(name, draws))
        write_result(arguments.output, settings, results)


if __name__ == "__main__":
    main()
