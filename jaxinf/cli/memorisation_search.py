"""Reading, training and scoring behind `jaxinf memorisation`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.adapters import stateful_from_linen
from jaxinf.applications.memorisation import (
    InOutDifference,
    Recipe,
    Reliability,
    RetrainedOutputs,
    fold_subsets,
    memorisation_estimates,
    memorisation_scores,
    retrain_and_record,
    split_half_reliability,
)
from jaxinf.applications.mislabelled import network_loss, train_models
from jaxinf.cli.features import put_together
from jaxinf.cli.memorisation_choices import Estimate
from jaxinf.cli.memorisation_pairs import MEMORISED, Owed, check_test, owed, read_test
from jaxinf.cli.rows import Rows, Wanted, check_classes
from jaxinf.cli.tables import read_rows
from jaxinf.cli.value_choices import Embedding
from jaxinf.errors import InputError, check_count
from jaxinf.evaluation import spearman
from jaxinf.influence.ground_truth import draw_subsets
from jaxinf.models import MLP, cross_entropy

_BATCH, _RATE = 50, 2e-3
_RECIPES: dict[Estimate, Recipe] = {
    Estimate.EARLY_LOSS: "doubt",
    Estimate.EARLY_GRADIENT: "gradient",
    Estimate.EARLY_STEP: "step",
    Estimate.EARLY_CURVATURE: "curvature",
}


@dataclass(frozen=True)
class Asked:
    """What the user chose.

    Attributes:
        estimate: the cheap one.
        models: of the estimate.
        retrain: models of random subsets, or 0.
        fraction: of the examples in each of those.
        epochs: of a full training run.
        hidden: width of the hidden layer.
        store: folder for the models' answers, or None.
        seed: of subsets and training.
    """

    estimate: Estimate
    models: int
    retrain: int
    fraction: float
    epochs: int
    hidden: int
    store: Path | None
    seed: int


@dataclass(frozen=True, eq=False)
class Found:
    """What came out.

    Attributes:
        rows: the training set as read.
        classes: labels as stored, one per class.
        train: features and classes, `{"x": float32[N, d], "y": int32[N]}`.
        note: how features were made, in a sentence.
        asked: what the user chose.
        estimate: float64[N], higher = more memorised.
        accuracies: of models of subsets: on what they saw, and on what they did not; None where
            none were trained.
        right: memorisation by right or wrong; None unless it was asked for.
        probability: the same by the probability of the label.
        reliability: of `right`.
        test_rows: the test set as read; None without one.
        test: its features and classes, as `train`.
        owed: what retraining said of it.
    """

    rows: Rows
    classes: np.ndarray
    train: dict[str, np.ndarray]
    note: str
    asked: Asked
    estimate: np.ndarray
    accuracies: tuple[float, float] | None = None
    right: InOutDifference | None = None
    probability: InOutDifference | None = None
    reliability: Reliability | None = None
    test_rows: Rows | None = None
    test: dict[str, np.ndarray] | None = None
    owed: Owed | None = None

    @property
    def scores(self) -> np.ndarray:
        """What the rows are ranked by."""
        return self.estimate if self.right is None else self.right.scores

    @property
    def order(self) -> np.ndarray:
        """int[N], most memorised first; those of whom nothing can be said last."""
        first = np.where(np.isfinite(self.scores), self.scores, -np.inf)
        # many are right or wrong in the same models: the estimate breaks ties
        return np.lexsort((-self.estimate, -first))

    @property
    def agreement(self) -> float | None:
        """Spearman correlation of the estimate with the retrained scores."""
        if self.right is None:
            return None
        known = np.isfinite(self.right.scores)
        if known.sum() < 2 or np.ptp(self.right.scores[known]) == 0:
            return None
        return float(spearman(self.estimate[None, known], self.right.scores[None, known])[0])

    @property
    def summary(self) -> str:
        """One sentence or two."""
        if self.right is None:
            top = self.order[0]
            text = (
                f"{len(self.rows):,} training examples ranked by {self.asked.estimate.value}, an "
                f"estimate: only the order means something (highest {self.estimate[top]:.3g}). "
                "--retrain 100 gives scores with standard errors."
            )
        else:
            count = int(np.sum(self.right.scores >= MEMORISED))
            text = (
                f"{count:,} of {len(self.rows):,} training examples ({count / len(self.rows):.1%}) "
                f"have a memorisation score of {MEMORISED:g} or more, by {self.asked.retrain:,} "
                f"models of {self.asked.fraction:.0%} of the examples."
            )
        if self.accuracies is None:
            return text
        seen, left_out = self.accuracies
        text += f" The models are right on {seen:.1%} of what they saw, {left_out:.1%} of the rest."
        if seen < 0.9:
            text += " They do not fit what they saw, so little is memorised: raise --epochs."
        return text


def estimated(
    path: Path,
    test_path: Path | None,
    wanted: Wanted,
    test_labels: Path | None,
    embedding: Embedding,
    asked: Asked,
    begin: Callable[[str], None],
) -> Found:
    """Read the sets and estimate memorisation; two steps of `begin`.

    Raises:
        InputError: a set that cannot be read, one class, NaN, a test set that does not fit or
            without retraining, or counts that mean nothing.
    """
    _check_counts(asked)
    if test_path is None and test_labels is not None:
        raise InputError("--test-labels are the labels of --test, which is not given")
    if test_path is not None and not asked.retrain:
        raise InputError(
            "--test needs --retrain: influence on test examples is told by retrained models, some "
            "100 or more"
        )
    begin(f"reading {path.name}")
    rows = read_rows(path, wanted)
    classes, y = np.unique(rows.labels, return_inverse=True)
    check_classes(classes)
    if len(rows) < 4:
        raise InputError(f"{rows.name} has {len(rows)} rows: leaving some out takes at least 4")
    test_rows = None if test_path is None else read_test(test_path, rows, wanted, test_labels)
    sets = put_together(rows, rows if test_rows is None else test_rows, embedding)
    train = {"x": np.asarray(sets.train_features, np.float32), "y": y.astype(np.int32)}
    test = None
    if test_rows is not None:
        check_test(test_rows, classes, sets)
        test = {
            "x": np.asarray(sets.valid_features, np.float32),
            "y": np.searchsorted(classes, test_rows.labels).astype(np.int32),
        }
    if asked.retrain:
        _subsets(asked, len(rows))  # refused before any training
    begin(f"training {asked.models} models on {len(rows):,} rows")
    found = Found(
        rows, classes, train, sets.note, asked, np.zeros(len(rows)), test_rows=test_rows, test=test
    )
    if asked.estimate in _RECIPES:
        return replace(found, estimate=_early(found))
    masks = fold_subsets(2, len(rows), repeats=asked.models // 2, seed=asked.seed)
    outputs = _record(found, masks, "folds", False)
    halves = memorisation_scores(masks, outputs.probability)
    left_out = asked.estimate is Estimate.LEFT_OUT
    return replace(
        found,
        estimate=1 - halves.mean_out if left_out else halves.scores,
        accuracies=(outputs.train_accuracy, outputs.left_out_accuracy),
    )


def retrained(found: Found, progress: bool) -> Found:
    """Feldman and Zhang's scores beside the estimate, and pairs where there is a test set."""
    asked = found.asked
    masks = _subsets(asked, len(found.rows))
    # a store of a run without a test set lacks the answers, and stays as it is
    part = "retrain" if found.test is None else "retrain-test"
    outputs = _record(found, masks, part, progress, found.test)
    return replace(
        found,
        accuracies=(outputs.train_accuracy, outputs.left_out_accuracy),
        right=memorisation_scores(masks, outputs.correct),
        probability=memorisation_scores(masks, outputs.probability),
        reliability=split_half_reliability(masks, outputs.correct, seed=0),
        owed=None if found.test_rows is None else owed(outputs, found.test_rows, asked.seed),
    )


def top_overlap(found: Found, count: int) -> float:
    """Share of the `count` most memorised by retraining that the estimate puts there too."""
    assert found.right is not None
    by_estimate = np.argsort(-found.estimate, kind="stable")[:count]
    return float(np.isin(found.order[:count], by_estimate).mean())


def _check_counts(asked: Asked) -> None:
    check_count(asked.models, "--models")
    check_count(asked.epochs, "--epochs")
    check_count(asked.hidden, "--hidden")
    if asked.estimate not in _RECIPES and asked.models % 2:
        raise InputError(f"--models is {asked.models}: halves come in pairs, give an even number")
    if asked.retrain < 0 or 0 < asked.retrain < 4:
        raise InputError(f"--retrain is {asked.retrain}: 0, or at least 4 models, better 100")


def _subsets(asked: Asked, count: int) -> np.ndarray:
    return draw_subsets(asked.retrain, count, fraction=asked.fraction, seed=asked.seed)


def _network(found: Found) -> Any:
    return MLP((found.asked.hidden,), len(found.classes))


def _record(
    found: Found,
    masks: np.ndarray,
    part: str,
    progress: bool,
    test: dict[str, np.ndarray] | None = None,
) -> RetrainedOutputs:
    """What a network trained on each mask's rows says of every row, and of every test example."""
    asked, module = found.asked, _network(found)
    like = found.train["x"][:1]

    def init(key: jax.Array) -> tuple[Any, Any]:
        return module.init(key, like)["params"], {}

    loss, _ = stateful_from_linen(module, module.init(jax.random.key(0), like), cross_entropy)
    return retrain_and_record(
        loss,
        init,
        lambda params, state, batch: jnp.asarray(module.apply({"params": params}, batch["x"])),
        found.train,
        test,
        subsets=masks,
        optimizer=optax.adam(_RATE),
        num_epochs=asked.epochs,
        batch_size=min(_BATCH, int(masks.sum(axis=1).min())),
        key=jax.random.key(asked.seed),
        # an example that is the only one of its class is memorised, or not learnt at all
        allow_missing_classes=True,
        store=None if asked.store is None else asked.store / part,
        progress=progress,
    )


def _early(found: Found) -> np.ndarray:
    """The mean of an estimate over models of the whole set that stopped early."""
    asked, module = found.asked, _network(found)
    models = train_models(
        module,
        found.train,
        len(found.classes),
        num_models=asked.models,
        optimizer=optax.adam(_RATE),
        num_epochs=max(1, asked.epochs // 4),
        batch_size=min(_BATCH, len(found.rows)),
        key=jax.random.key(asked.seed),
        store=None if asked.store is None else asked.store / "early",
        progress=False,
    )
    return memorisation_estimates(
        network_loss(module), models, found.train, recipe=_RECIPES[asked.estimate]
    ).mean(axis=0)
