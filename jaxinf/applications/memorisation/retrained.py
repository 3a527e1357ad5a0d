"""Train models on subsets and keep what each says of every training and test example."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from jaxinf.adapters import StatefulLoss
from jaxinf.errors import InputError, check_count, check_examples, check_labels
from jaxinf.influence.ground_truth.retrain import retrain_on_subsets
from jaxinf.influence.ground_truth.sgd import sgd_trainer
from jaxinf.influence.ground_truth.subsets import check_subsets
from jaxinf.typing import Batch, Params, PyTree

LogitsFn: TypeAlias = Callable[[Params, PyTree, Batch], jax.Array]
"""`logits_fn(params, state, batch) -> float[B, C]`, in evaluation mode."""


@dataclass(frozen=True)
class RetrainedOutputs:
    """What S models of subsets say.

    Attributes:
        subsets: bool[S, N].
        correct: bool[S, N], whether the class of highest logit is the label.
        probability: float32[S, N], of the label.
        test_correct: bool[S, M], or None without test examples.
        test_probability: float32[S, M], or None.
    """

    subsets: Bool[np.ndarray, "S N"]
    correct: Bool[np.ndarray, "S N"]
    probability: Float[np.ndarray, "S N"]
    test_correct: Bool[np.ndarray, "S M"] | None = None
    test_probability: Float[np.ndarray, "S M"] | None = None

    @property
    def train_accuracy(self) -> float:
        """Share of the examples trained on that the models are right about."""
        return float(np.mean(self.correct[self.subsets]))

    @property
    def left_out_accuracy(self) -> float:
        """Share of the training examples left out that the models are right about."""
        return float(np.mean(self.correct[~self.subsets]))


def retrain_and_record(
    loss: StatefulLoss,
    init: Callable[[jax.Array], tuple[Params, PyTree]],
    logits_fn: LogitsFn,
    train: Batch,
    test: Batch | None = None,
    *,
    subsets: ArrayLike,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    key: jax.Array,
    rows_at_once: int = 1024,
    allow_missing_classes: bool = False,
    models_at_once: int | None = None,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> RetrainedOutputs:
    """Train one model per subset, many at once, and record its answers on all examples.

    Args:
        loss: `loss(params, state, batch, *, train) -> (float[B], new_state)`, as from
            `jaxinf.adapters.stateful_from_linen`.
        init: `init(key) -> (params, state)`.
        logits_fn: `(params, state, batch) -> float[B, C]`, in evaluation mode.
        train: pytree of arrays with leading axis N; `train["y"]` int[N] are the labels.
        test: M test examples of the same structure, or None.
        subsets: bool[S, N], as from `draw_subsets` or `fold_subsets`.
        optimizer: optax gradient transformation; schedules belong in it.
        num_epochs: passes over a subset. Memorisation is of models that fit their training set:
            train until they do.
        batch_size: of training.
        key: random key; model s gets `fold_in(key, s)`.
        rows_at_once: examples per pass when the answers are taken.
        allow_missing_classes: as in `retrain_on_subsets`.
        models_at_once: as in `retrain_on_subsets`.
        store: as in `retrain_on_subsets`: a killed run goes on where it stopped.
        progress: show a bar.

    Returns:
        `RetrainedOutputs`, for `memorisation_scores` and `influence_scores`.

    Raises:
        InputError: for examples or subsets that cannot be used, a subset that lacks a class, or
            labels that are missing or out of range.

    Example:
        >>> from jaxinf.adapters import stateful_from_linen
        >>> from jaxinf.influence.ground_truth import draw_subsets
        >>> from jaxinf.models import MLP, cross_entropy
        >>> module = MLP((), 2)
        >>> x = np.array([[1.0], [2.0], [-1.0], [-2.0]] * 2, np.float32)
        >>> train = {"x": x, "y": np.array([0, 0, 1, 1] * 2, np.int32)}
        >>> init = lambda key: (module.init(key, x[:1])["params"], {})
        >>> loss, _ = stateful_from_linen(
        ...     module, {"params": init(jax.random.key(0))[0]}, cross_entropy)
        >>> logits = lambda params, state, batch: module.apply({"params": params}, batch["x"])
        >>> found = retrain_and_record(
        ...     loss, init, logits, train, subsets=draw_subsets(4, 8, fraction=0.75, seed=1),
        ...     optimizer=optax.sgd(1.0), num_epochs=20, batch_size=3, key=jax.random.key(0),
        ...     progress=False)
        >>> found.correct.shape, found.train_accuracy
        ((4, 8), 1.0)
    """
    count = check_examples(train, "train")
    check_count(rows_at_once, "rows_at_once")
    masks = check_subsets(subsets)
    if masks.shape[1] != count:
        raise InputError(f"subsets {list(masks.shape)} do not fit {count} training examples")
    sides: dict[str, Any] = {"train": train}
    if test is not None:
        check_examples(test, "test")
        sides["test"] = test
    params, state = jax.eval_shape(init, jax.random.key(0))
    for name, side in sides.items():
        _check_labels(logits_fn, params, state, side, name)
    trainer = sgd_trainer(
        loss, init, train, optimizer=optimizer, num_epochs=num_epochs, batch_size=batch_size
    )
    answers = Partial(_Answers(logits_fn, rows_at_once), trainer, jax.tree.map(jnp.asarray, sides))
    found = retrain_on_subsets(
        answers,
        masks,
        key=key,
        labels=train["y"],
        allow_missing_classes=allow_missing_classes,
        models_at_once=models_at_once,
        store=store,
        progress=progress,
    )
    tested = found.get("test", {"correct": None, "probability": None})
    return RetrainedOutputs(
        masks,
        found["train"]["correct"],
        found["train"]["probability"],
        tested["correct"],
        tested["probability"],
    )


@dataclass(frozen=True)
class _Answers:
    """Train, then ask; static, and the examples are arguments that no program bakes in."""

    logits_fn: LogitsFn
    rows_at_once: int

    def __call__(self, trainer: Partial, sides: Any, key: jax.Array, rows: jax.Array) -> PyTree:
        params, state = trainer(key, rows)

        def answer(batch: Batch) -> dict[str, jax.Array]:
            logits = self.logits_fn(params, state, batch)
            labels = batch["y"]
            chances = jax.nn.softmax(logits.astype(jnp.float32))
            own = jnp.take_along_axis(chances, labels[:, None].astype(jnp.int32), axis=1)
            return {"correct": jnp.argmax(logits, axis=1) == labels, "probability": own[:, 0]}

        return {name: in_pieces(answer, side, self.rows_at_once) for name, side in sides.items()}


def in_pieces(fn: Callable[[Batch], PyTree], examples: Batch, rows_at_once: int) -> PyTree:
    """Apply a function of a batch to all examples, so many rows at a time; traceable.

    Example:
        >>> in_pieces(lambda batch: 2 * batch, jnp.arange(5), 2).tolist()
        [0, 2, 4, 6, 8]
    """
    count = jax.tree.leaves(examples)[0].shape[0]
    size = min(rows_at_once, count)
    # the last piece is filled up with the last example
    rows = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    found = lax.map(lambda at: fn(jax.tree.map(lambda a: a[at], examples)), jnp.asarray(rows))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], found)


def _check_labels(logits_fn: LogitsFn, params: PyTree, state: PyTree, side: Any, name: str) -> None:
    labels = side.get("y") if isinstance(side, dict) else None
    if labels is None or np.ndim(labels) != 1 or np.asarray(labels).dtype.kind not in "iu":
        raise InputError(f"{name}['y'] must be one integer class label per example, int[N]")
    few = jax.tree.map(lambda a: np.asarray(a[:1]), side)
    logits = jax.eval_shape(logits_fn, params, state, few)
    if len(logits.shape) != 2 or logits.shape[0] != 1:
        raise InputError(
            f"logits_fn returned {list(logits.shape)} for one example: it must be [1, classes]"
        )
    check_labels(labels, logits.shape[1], f"{name}['y']")
