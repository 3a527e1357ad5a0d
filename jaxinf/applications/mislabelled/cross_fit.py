"""Out-of-fold predictions: what models that never saw an example's label say of it."""

import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.applications.mislabelled.network import labelled_arrays, make_trainer
from jaxinf.errors import InputError, check_count
from jaxinf.influence.ground_truth import retrain_on_subsets
from jaxinf.typing import Batch
from jaxinf.valuation.logistic import fit_logistic, standardised_designs


def class_folds(
    labels: ArrayLike, num_folds: int, *, repeats: int = 1, seed: int = 0
) -> Int[np.ndarray, "R N"]:
    """Divide the examples into folds that each hold their share of every class.

    Sizes of two folds differ by one example at most, of a class and in all.

    Args:
        labels: int[N], every class that occurs at least twice: a class of one example is unknown
            to the model that leaves it out.
        num_folds: k, 2 to N.
        repeats: R, how often the examples are divided anew.
        seed: the divisions.

    Returns:
        int[R, N], the fold of each example, 0 to k − 1.

    Raises:
        InputError: for labels that are not int[N], a class of one example, or too many folds.

    Example:
        >>> class_folds([0, 0, 1, 1], 2, seed=1).sum(axis=1).tolist()
        [2]
    """
    classes = np.asarray(labels)
    check_count(num_folds, "num_folds", 2)
    check_count(repeats, "repeats")
    if classes.ndim != 1 or classes.dtype.kind not in "iu" or not classes.size:
        raise InputError(f"labels are {classes.dtype}{list(classes.shape)}: int[N] is needed")
    if num_folds > len(classes):
        raise InputError(f"{num_folds} folds of {len(classes)} examples: some would be empty")
    found, counts = np.unique(classes, return_counts=True)
    if counts.min() < 2:
        lone = found[counts < 2].tolist()
        raise InputError(
            f"class {lone[0]} has one example ({len(lone)} such classes): the model that leaves it "
            "out cannot know it. Merge the class, or leave it out"
        )
    rng = np.random.default_rng(seed)
    folds = np.empty((repeats, len(classes)), np.int64)
    for row in folds:
        # by class, in random order within it: then round and round
        order = np.lexsort((rng.random(len(classes)), classes))
        row[order] = np.arange(len(classes)) % num_folds
    return folds


def cross_fit_logistic(
    features: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    num_folds: int = 5,
    repeats: int = 1,
    l2: float = 1.0,
    seed: int = 0,
) -> Float[np.ndarray, "N C"]:
    """Out-of-fold log-probabilities by multinomial logistic regression on standardised features.

    All models are fitted at once, to the minimum. Where there are more columns than examples
    these are rotated first, which leaves a penalised linear model's predictions as they are.

    Args:
        features: float[N, ...].
        labels: int[N], 0 to C − 1.
        num_classes: C, at least 2.
        num_folds: k; each model sees a share 1 − 1/k of the examples.
        repeats: divisions to average the probabilities over.
        l2: penalty beside the *sum* of the losses, positive.
        seed: the divisions.

    Returns:
        float32[N, C], log-probabilities.

    Raises:
        InputError: as `class_folds`; NaN among the features, labels out of range, or a penalty
            that is not positive.

    Example:
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]], np.float32)
        >>> cross_fit_logistic(x, [0, 0, 1, 1], 2, num_folds=2).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    x, y = labelled_arrays({"x": np.asarray(features), "y": np.asarray(labels)}, num_classes)
    if not l2 > 0:
        raise InputError(f"l2 is {l2}: a positive number")
    folds = class_folds(y, num_folds, repeats=repeats, seed=seed)
    flat = jnp.asarray(x.reshape(len(x), -1))
    design, _ = standardised_designs(flat, flat[:1])
    parts = [
        _logistic_out_of_fold(design, jnp.asarray(y), jnp.asarray(row), num_classes, num_folds, l2)
        for row in folds
    ]
    return _mean_probability(np.stack([np.asarray(part) for part in parts]))


def cross_fit(
    module: nn.Module,
    train: Batch,
    num_classes: int,
    *,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    key: jax.Array,
    num_folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    traced: bool = True,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> Float[np.ndarray, "N C"]:
    """Out-of-fold log-probabilities of a flax.linen network trained k times.

    Args:
        module: called as `module.apply(variables, x, train=...)`, as those of `jaxinf.models`.
        train: `{"x": [N, ...], "y": int[N]}`.
        num_classes: C, at least 2; the module's outputs.
        optimizer: optax gradient transformation.
        num_epochs: passes over the examples of a model; early stopping finds wrong labels better.
        batch_size: of training.
        key: start and order of each model.
        num_folds: k.
        repeats: divisions to average the probabilities over; k models each.
        seed: the divisions.
        traced: as in `retrain_on_subsets`; False where convolutions run on a CPU.
        store: folder where every finished model becomes durable: a killed run goes on where it
            stopped.
        progress: show a bar.

    Returns:
        float32[N, C], log-probabilities.

    Raises:
        InputError: as `class_folds` and `retrain_on_subsets`; NaN inputs or labels out of range.

    Example:
        >>> from jaxinf.models import MLP
        >>> x = np.tile(np.array([[-2.0], [2.0]], np.float32), (8, 1))
        >>> found = cross_fit(
        ...     MLP((), 2), {"x": x, "y": np.arange(16) % 2}, 2, optimizer=optax.sgd(0.5),
        ...     num_epochs=5, batch_size=4, key=jax.random.key(0), num_folds=2, progress=False)
        >>> np.array_equal(found.argmax(axis=1), np.arange(16) % 2)
        True
    """
    x, y = labelled_arrays(train, num_classes)
    folds = class_folds(y, num_folds, repeats=repeats, seed=seed)
    subsets = (folds[:, None] != np.arange(num_folds)[None, :, None]).reshape(-1, len(y))

    trainer = make_trainer(module, x, y, optimizer, num_epochs, batch_size)
    answer = Partial(_LogProbabilities(module, min(1024, len(y))), trainer, jnp.asarray(x))
    found = retrain_on_subsets(
        answer,
        subsets,
        key=key,
        labels=y,
        traced=traced,
        models_at_once=num_folds if traced else None,
        store=store,
        progress=progress,
    )
    answers = np.asarray(found).reshape(repeats, num_folds, len(y), num_classes)
    own = [answers[r, fold, np.arange(len(y))] for r, fold in enumerate(folds)]
    return _mean_probability(np.stack(own))


class _LogProbabilities:
    """Train, then predict every example; static, so that compiled functions are found again."""

    def __init__(self, module: nn.Module, rows: int):
        self._key = module, rows

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LogProbabilities) and self._key == other._key

    def __call__(self, trainer: Partial, x: jax.Array, key: jax.Array, rows: Any) -> jax.Array:
        module, size = self._key
        params, state = trainer(key, jnp.asarray(rows))
        predict = lambda one: module.apply({"params": params, **state}, one[None])[0]
        return jax.nn.log_softmax(jax.lax.map(predict, x, batch_size=size))


def _logistic_out_of_fold(
    design: jax.Array, labels: jax.Array, folds: jax.Array, classes: int, count: int, l2: float
) -> jax.Array:
    targets = jax.nn.one_hot(labels, classes, dtype=design.dtype)
    fit = lambda fold: (
        fit_logistic(design, targets, (folds != fold).astype(design.dtype), l2=l2).coefficients
    )
    models = jax.vmap(fit)(jnp.arange(count))
    return jax.nn.log_softmax(jnp.einsum("nd,ndc->nc", design, models[folds]))


def _mean_probability(log_probabilities: np.ndarray) -> np.ndarray:
    """Log of the mean over the first axis."""
    top = log_probabilities.max(axis=0)
    return top + np.log(np.exp(log_probabilities - top).mean(axis=0))
