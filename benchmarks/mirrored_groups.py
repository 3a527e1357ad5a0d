"""The mirror for groups of training examples on networks; used by `benchmarks.mirrored_hypothesis`.

The training set holds up to three parts: examples of which some are wrongly labelled, as
many clean ones, and the rest. The wrong labels are dealt to `groups` groups of the first part so
that their share sweeps from 0 to 1, as in the released code. All kinds of groups are groups of one
training set:

    swept     the share of wrong labels goes from 0 to 1 with the number of the group
    shuffled  the same examples, dealt at random: every group has about the same share
    clean     examples without wrong labels, dealt at random

The truth of a group is the test set's mean loss after training without the group, minus before.
The mirror is the group's mean loss before the test set joins the training set, minus after: one
training serves all groups.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.tree_util import Partial

from jaxinf.adapters import stateful_from_linen
from jaxinf.engine import data_mesh
from jaxinf.evaluation import bootstrap_interval, pearson, spearman
from jaxinf.influence.ground_truth import retrain_on_subsets, sgd_trainer
from jaxinf.models import MLP, SmallCNN, cross_entropy, fit

KINDS = ("swept", "shuffled", "clean")


class Experiment(NamedTuple):
    """One training set with its groups, and the test set behind it.

    Attributes:
        data: the N training examples, then the M test examples.
        groups: kind -> int[G, m], rows of the training set.
        wrong: bool[N], which labels are wrong.
    """

    data: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    wrong: np.ndarray


class Training(NamedTuple):
    """How every network is trained."""

    model: str
    epochs: int
    batch_size: int
    learning_rate: float


def make_experiment(
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    num_groups: int,
    group_size: int,
    seed: int,
    kinds: tuple[str, ...] = KINDS,
) -> Experiment:
    """Deal the groups and set the wrong labels; without clean groups the rest may be empty."""
    rng = np.random.default_rng(seed)
    count, num_classes = len(train["y"]), int(train["y"].max()) + 1
    part = num_groups * group_size
    needed = 2 * part if "clean" in kinds else part
    if needed > count:
        raise SystemExit(f"groups of {group_size} take {needed} examples: there are {count}")
    rows = rng.permutation(count)
    swept = rows[:part].reshape(num_groups, group_size)
    share = np.linspace(0, 1, num_groups)
    wrong = np.zeros(count, bool)
    wrong[swept] = np.arange(group_size) < np.rint(share * group_size)[:, None]
    labels = train["y"].copy()
    # another class, each with the same probability
    labels[wrong] += rng.integers(1, num_classes, wrong.sum()).astype(labels.dtype)
    labels %= num_classes
    groups = {
        "swept": swept,
        "shuffled": rng.permutation(rows[:part]).reshape(num_groups, group_size),
    }
    if "clean" in kinds:
        groups["clean"] = rows[part : 2 * part].reshape(num_groups, group_size)
    data = {
        "x": np.concatenate([train["x"], test["x"]]),
        "y": np.concatenate([labels, test["y"]]),
    }
    return Experiment(data, groups, wrong)


def subsets_of(experiment: Experiment, kinds: tuple[str, ...]) -> np.ndarray:
    """What is trained on: the training set, it with the test set, and it without each group."""
    count, total = len(experiment.wrong), len(experiment.data["y"])
    base = np.arange(total) < count
    without = [base & ~np.isin(np.arange(total), g) for k in kinds for g in experiment.groups[k]]
    return np.stack([base, np.ones(total, bool), *without])


def influences(
    losses: np.ndarray, experiment: Experiment, kinds: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per kind: truth and mirror, float[G] each, from the losses [S, N + M] of `subsets_of`."""
    count = len(experiment.wrong)
    on_test = losses[:, count:].mean(axis=1)
    gain = losses[0] - losses[1]
    found, start = {}, 2
    for kind in kinds:
        groups = experiment.groups[kind]
        truth = on_test[start : start + len(groups)] - on_test[0]
        found[kind] = truth, gain[groups].mean(axis=1)
        start += len(groups)
    return found


class Trainer(NamedTuple):
    """How the models of all seeds are trained, compiled once.

    Attributes:
        of_seed: key -> the `train_fn` whose models all start from the same weights.
        traced: whether that can be vmapped with profit.
    """

    of_seed: Callable[[jax.Array], Callable[..., Any]]
    traced: bool


def make_trainer(experiment: Experiment, training: Training) -> Trainer:
    """Train the network, return the losses float[N + M] of every example."""
    data = experiment.data
    module: nn.Module = SmallCNN() if training.model == "cnn" else MLP((128, 64))
    init = lambda key: (module.init(key, data["x"][:1])["params"], {})
    params, _ = init(jax.random.key(0))
    loss, _ = stateful_from_linen(module, {"params": params}, cross_entropy)
    evaluate = lambda params: cross_entropy(module.apply({"params": params}, data["x"]), data)
    # a rate that falls to zero: what is left of the order of the batches would hide the groups
    steps = training.epochs * (len(experiment.wrong) // training.batch_size)
    rate = optax.cosine_decay_schedule(training.learning_rate, steps)
    options: dict[str, Any] = {
        "optimizer": optax.sgd(rate, momentum=0.9),
        "num_epochs": training.epochs,
        "batch_size": training.batch_size,
    }
    # convolutions on a CPU are slow under vmap and inside compiled loops
    if training.model != "cnn" or jax.default_backend() != "cpu":
        outputs = lambda params, _: evaluate(params)
        trainer = sgd_trainer(loss, init, data, outputs=outputs, **options)
        return Trainer(lambda key: Partial(_with_key, trainer, key), True)
    compiled = jax.jit(evaluate)

    def step_by_step(key: jax.Array, _: jax.Array, rows: np.ndarray) -> jax.Array:
        part = {name: a[rows] for name, a in data.items()}
        fitted = fit(loss, *init(key), part, key=key, progress=False, **options)
        return compiled(fitted.params)

    return Trainer(lambda key: functools.partial(step_by_step, key), False)


def train_all(
    experiment: Experiment, trainer: Trainer, kinds: tuple[str, ...], seed: int, store: Any
) -> np.ndarray:
    """Losses float[S, N + M] of every example under the model of every subset."""
    key = jax.random.key(seed)
    return retrain_on_subsets(
        trainer.of_seed(key),
        subsets_of(experiment, kinds),
        key=key,
        traced=trainer.traced,
        mesh=data_mesh(),
        store=store,
    )


def _with_key(trainer: Partial, key: jax.Array, _: jax.Array, rows: jax.Array) -> Any:
    return trainer(key, rows)


def agreement(truth: np.ndarray, mirror: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    """Correlations over the groups of the means over seeds, float[seeds, G] each.

    `given_share` is Spearman's after the part that is linear in the share of wrong labels has been
    taken out of the ranks of both; `seeds_agree` and `ceiling` are those of `reachable`.
    """
    t, m = truth.mean(axis=0), mirror.mean(axis=0)
    found: dict[str, Any] = {
        "pearson": _correlation(pearson, t, m),
        "spearman": _correlation(spearman, t, m),
        "per_seed_spearman": [
            float(spearman(a[None], b[None])[0]) for a, b in zip(truth, mirror, strict=True)
        ],
    }
    interval = bootstrap_interval(
        (t, m),
        lambda a, b: _correlation(spearman, a, b),
        seed=0,
        method="percentile",
        num_resamples=1000,
    )
    found["spearman_interval"] = [interval.low, interval.high]
    if np.ptp(share):
        ranks = [_without(_ranks(v), _ranks(share)) for v in (t, m)]
        found["given_share"] = _correlation(pearson, *ranks)
    if len(truth) > 1:
        interval = bootstrap_interval(
            tuple(truth),
            lambda *seeds: reachable(np.stack(seeds))[1],
            seed=0,
            method="percentile",
            num_resamples=1000,
        )
        found["seeds_agree"], found["ceiling"] = reachable(truth)
        found["ceiling_interval"] = [interval.low, interval.high]
    return found


def reachable(truth: np.ndarray) -> tuple[float, float]:
    """What the noise of training leaves to be predicted, from the truth float[seeds, G].

    First the mean Spearman of two seeds, over all pairs. Then the ceiling: what a score that knew
    the expected truth would reach against the mean of all seeds, which is the square root of that
    mean's reliability by Spearman and Brown's formula; 0 where the seeds do not agree at all.
    """
    count = len(truth)
    first, second = np.triu_indices(count, k=1)
    pair = float(spearman(truth[first], truth[second]).mean())
    reliability = count * pair / (1 + (count - 1) * pair) if pair > 0 else 0.0
    return pair, float(np.sqrt(reliability))


def _correlation(of: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray) -> float:
    return float(of(a[None], b[None])[0])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].astype(float)


def _without(values: np.ndarray, cause: np.ndarray) -> np.ndarray:
    return values - np.polyval(np.polyfit(cause, values, 1), cause)
