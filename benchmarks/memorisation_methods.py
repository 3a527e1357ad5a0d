"""The estimates that `benchmarks.memorisation` compares, each at several costs.

A cost is in full runs: one run trains on all N examples for all epochs. Answers cost their
forward passes, in the same unit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.memorisation_sets import Problem, train_on, train_whole
from jaxinf.applications.memorisation import (
    Recipe,
    RetrainedOutputs,
    fold_subsets,
    memorisation_estimates,
    memorisation_scores,
)

FEW = "same estimator, few models"
LEFT_OUT = "loss when left out"
IN_OUT = "seen less left out"
# forward passes per example and model; a gradient is two more
PASSES: dict[Recipe, int] = {"doubt": 1, "gradient": 3, "step": 4, "curvature": 12}
SETTINGS: dict[Recipe, tuple[dict[str, float], ...]] = {
    "doubt": ({},),
    "gradient": ({},),
    "step": ({"learning_rate": 0.03}, {"learning_rate": 0.1}, {"learning_rate": 0.3}),
    "curvature": ({"damping": 0.01}, {"damping": 0.1}, {"damping": 1.0}),
}
NAMES: dict[Recipe, str] = {
    "doubt": "loss of whole-set models",
    "gradient": "gradient norm of whole-set models",
    "step": "Forward-INF on itself, finite step",
    "curvature": "influence function on itself",
}


class Found(NamedTuple):
    """Scores of every seed at one cost.

    Attributes:
        method: family.
        setting: what was chosen within it.
        models: trained per seed.
        training: cost of training, in full runs.
        scoring: cost of what follows, in full runs.
        scores: float64[seeds, N].
    """

    method: str
    setting: str
    models: int
    training: float
    scoring: float
    scores: np.ndarray


def few_models(problem: Problem, found: RetrainedOutputs, fraction: float) -> Iterator[Found]:
    """The retrained estimate itself from a fraction of its models; `found` holds every seed's."""
    seeds, few = problem.size.seeds, problem.size.few
    for count in (c for c in (5, 10, 20, 40) if c <= few):
        for kind, outputs in (("right or wrong", found.correct), ("p", found.probability)):
            scores = []
            for seed in range(seeds):
                rows = slice(seed * few, seed * few + count)
                each = memorisation_scores(found.subsets[rows], outputs[rows]).scores
                # an example that none left out, or all: no better guess than the mean
                scores.append(np.where(np.isfinite(each), each, np.nanmean(each)))
            yield Found(
                FEW, kind, count, count * fraction, count * _passes(problem, 1), np.stack(scores)
            )


def folds(problem: Problem, num_folds: int, repeats: int, epochs: int) -> Iterator[Found]:
    """Cross-fitted models: every example left out equally often."""
    size = problem.size
    masks = np.concatenate(
        [
            fold_subsets(num_folds, size.train, repeats=repeats, seed=_seed(problem, 50 + seed))
            for seed in range(size.seeds)
        ]
    )
    found = train_on(problem, masks, epochs, _seed(problem, 60 + num_folds))
    setting = f"{num_folds} folds, {epochs} epochs"
    per_seed = repeats * num_folds
    count = num_folds
    while count <= per_seed:
        pair = []
        for seed in range(size.seeds):
            rows = slice(seed * per_seed, seed * per_seed + count)
            pair.append(memorisation_scores(found.subsets[rows], found.probability[rows]))
        cost = count * (1 - 1 / num_folds) * epochs / size.epochs, count * _passes(problem, 1)
        left_out = np.stack([1 - each.mean_out for each in pair])
        yield Found(LEFT_OUT, setting, count, *cost, left_out)
        if epochs == size.epochs:
            yield Found(IN_OUT, setting, count, *cost, np.stack([each.scores for each in pair]))
        count = per_seed if count < per_seed < 2 * count else 2 * count


def whole(problem: Problem, epochs: int, counts: tuple[int, ...]) -> Iterator[Found]:
    """Self-influence and loss in models of all examples."""
    size = problem.size
    models = train_whole(problem, size.seeds * size.whole, epochs, _seed(problem, 70))
    for recipe, options in SETTINGS.items():
        for option in options:
            each = memorisation_estimates(
                problem.loss_fn, models, problem.train, recipe=recipe, batch_size=1000, **option
            )
            per_seed = each.reshape(size.seeds, size.whole, -1)
            said = "".join(f", {name.replace('_', ' ')} {v:g}" for name, v in option.items())
            for count in counts:
                yield Found(
                    NAMES[recipe],
                    f"{epochs} epochs{said}",
                    count,
                    count * epochs / size.epochs,
                    count * _passes(problem, PASSES[recipe]),
                    per_seed[:, :count].mean(axis=1),
                )


def _passes(problem: Problem, passes: int) -> float:
    """Forward passes over all examples, in full runs."""
    return passes / (3 * problem.size.epochs)


def _seed(problem: Problem, number: int) -> int:
    return number + {"report": 0, "development": 1000}[problem.part]
