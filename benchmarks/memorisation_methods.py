"""The estimates that `benchmarks.memorisation` compares, each at several costs.

A cost is in full runs: one run trains on all N examples for all epochs. Answers cost their
forward passes, in the same unit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
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


CHEAP: tuple[Recipe, ...] = ("doubt", "gradient", "step")
Wanted = set[tuple[str, str]] | None
"""Methods and settings to run; None: all."""


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


def few_models(
    problem: Problem, found: RetrainedOutputs, fraction: float, wanted: Wanted = None
) -> Iterator[Found]:
    """The retrained estimate itself from a fraction of its models; `found` holds every seed's."""
    seeds, few = problem.size.seeds, problem.size.few
    for count in (c for c in (5, 10, 20, 40) if c <= few):
        for kind, outputs in (("right or wrong", found.correct), ("p", found.probability)):
            if not _is_wanted(FEW, kind, wanted):
                continue
            scores = []
            for seed in range(seeds):
                rows = slice(seed * few, seed * few + count)
                each = memorisation_scores(found.subsets[rows], outputs[rows]).scores
                # an example that none left out, or all: no better guess than the mean
                scores.append(np.where(np.isfinite(each), each, np.nanmean(each)))
            yield Found(
                FEW, kind, count, count * fraction, count * _passes(problem, 1), np.stack(scores)
            )


def folds(
    problem: Problem, num_folds: int, repeats: int, epochs: int, wanted: Wanted = None
) -> Iterator[Found]:
    """Cross-fitted models: every example left out equally often."""
    size = problem.size
    setting = f"{num_folds} folds, {epochs} epochs"
    # models that have not fitted their examples have no difference to show
    kinds = (LEFT_OUT, IN_OUT) if epochs == size.epochs else (LEFT_OUT,)
    kinds = [kind for kind in kinds if _is_wanted(kind, setting, wanted)]
    if not kinds:
        return
    masks = np.concatenate(
        [
            fold_subsets(num_folds, size.train, repeats=repeats, seed=_seed(problem, 50 + seed))
            for seed in range(size.seeds)
        ]
    )
    found = train_on(problem, masks, epochs, _seed(problem, 60 + num_folds))
    per_seed = repeats * num_folds
    count = num_folds
    while count <= per_seed:
        pair = []
        for seed in range(size.seeds):
            rows = slice(seed * per_seed, seed * per_seed + count)
            pair.append(memorisation_scores(found.subsets[rows], found.probability[rows]))
        cost = count * (1 - 1 / num_folds) * epochs / size.epochs, count * _passes(problem, 1)
        for kind in kinds:
            scores = [1 - e.mean_out if kind == LEFT_OUT else e.scores for e in pair]
            yield Found(kind, setting, count, *cost, np.stack(scores))
        count = per_seed if count < per_seed < 2 * count else 2 * count


def whole(
    problem: Problem,
    epochs: int,
    counts: tuple[int, ...],
    recipes: tuple[Recipe, ...],
    wanted: Wanted = None,
) -> Iterator[Found]:
    """Self-influence and loss in models of all examples, the first max(counts) of each seed."""
    size = problem.size
    asked: list[tuple[Recipe, dict[str, float], str]] = []
    most = 1 if size.is_quick else None
    for recipe in recipes:
        for option in SETTINGS[recipe][:most]:
            said = "".join(f", {name.replace('_', ' ')} {v:g}" for name, v in option.items())
            if _is_wanted(NAMES[recipe], f"{epochs} epochs{said}", wanted):
                asked.append((recipe, option, f"{epochs} epochs{said}"))
    if not asked:
        return
    models = train_whole(problem, size.seeds * size.whole, epochs, _seed(problem, 70))
    rows = np.arange(size.seeds * size.whole).reshape(size.seeds, -1)[:, : max(counts)]
    models = jax.tree.map(lambda a: a[rows.ravel()], models)
    for recipe, option, setting in asked:
        each = memorisation_estimates(
            problem.loss_fn, models, problem.train, recipe=recipe, batch_size=1000, **option
        )
        per_seed = each.reshape(*rows.shape, -1)
        for count in counts:
            yield Found(
                NAMES[recipe],
                setting,
                count,
                count * epochs / size.epochs,
                count * _passes(problem, PASSES[recipe]),
                per_seed[:, :count].mean(axis=1),
            )


def _is_wanted(method: str, setting: str, wanted: Wanted) -> bool:
    return wanted is None or (method, setting) in wanted


def _passes(problem: Problem, passes: int) -> float:
    """Forward passes over all examples, in full runs."""
    return passes / (3 * problem.size.epochs)


def _seed(problem: Problem, number: int) -> int:
    return number + {"report": 0, "development": 1000}[problem.part]
