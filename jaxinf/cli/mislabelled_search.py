"""Reading, training and scoring behind `jaxinf mislabelled`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxinf.applications.mislabelled import (
    METHODS,
    Evidence,
    NoiseRate,
    Suspects,
    class_folds,
    confident_joint,
    cross_fit,
    cross_fit_logistic,
    find_mislabelled,
    mixture_noise_rate,
    network_loss,
    train_models,
)
from jaxinf.applications.mislabelled.find import Budget, check_budget
from jaxinf.cli.features import put_together
from jaxinf.cli.mislabelled_choices import Classifier
from jaxinf.cli.rows import Rows, Wanted, check_classes, listed
from jaxinf.cli.tables import TABLES, read_rows
from jaxinf.cli.value_choices import Embedding
from jaxinf.errors import InputError, check_count
from jaxinf.models import MLP
from jaxinf.valuation.columns import standardise

_HIDDEN, _EPOCHS, _EARLY_EPOCHS, _EARLY, _BATCH, _RATE = 128, 15, 2, 8, 50, 2e-3


@dataclass(frozen=True)
class Asked:
    """What the user chose.

    Attributes:
        method: as typed, with dashes.
        model: what is trained.
        folds: of cross-fitting.
        budget: as `find_mislabelled` takes it; None for its default.
        store: folder for trained networks, or None.
        seed: of folds and training.
    """

    method: str
    model: Classifier
    folds: int
    budget: Budget | None
    store: Path | None
    seed: int


@dataclass(frozen=True, eq=False)
class Found:
    """What came out.

    Attributes:
        rows: the training set as read.
        suspects: scores, flags and suggestions; classes are positions in `classes`.
        classes: labels as stored, one per class.
        out_of_fold: float[N, C], log-probabilities.
        joint: the confident joint's estimate.
        mixture: the mixture's; None where it cannot be made.
        note: how features were made, in a sentence.
        asked: what the user chose.
    """

    rows: Rows
    suspects: Suspects
    classes: np.ndarray
    out_of_fold: np.ndarray
    joint: NoiseRate
    mixture: NoiseRate | None
    note: str
    asked: Asked

    @property
    def summary(self) -> str:
        """One sentence."""
        flagged = int(self.suspects.is_flagged.sum())
        return (
            f"{flagged:,} of {len(self.rows):,} training labels ({flagged / len(self.rows):.1%}) "
            f"are flagged by {self.asked.method}; the confident joint takes "
            f"{self.joint.rate:.1%} of the labels for wrong."
        )


def read_budget(text: str | None) -> Budget | None:
    """A budget as typed: a whole number, a share, or the name of an estimate.

    Raises:
        InputError: for anything else.

    Example:
        >>> read_budget("20"), read_budget("0.1"), read_budget("confident-joint")
        (20, 0.1, 'confident_joint')
    """
    if text is None:
        return None
    if text in ("confident-joint", "mixture"):
        return "confident_joint" if text == "confident-joint" else "mixture"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InputError(f"--budget is {text!r}: a number of rows, a share, confident-joint or mixture")


def search(
    train_path: Path,
    valid_path: Path | None,
    wanted: Wanted,
    valid_labels: Path | None,
    embedding: Embedding,
    asked: Asked,
    begin: Callable[[str], None],
) -> Found:
    """Read the sets, train what the method looks at, score and flag; four steps of `begin`.

    Raises:
        InputError: sets that cannot be read or do not fit, a class of one example, a trusted
            method without a trusted set, or a budget out of range.
    """
    name = asked.method.replace("-", "_")
    needs = METHODS[name].needs
    check_count(asked.folds, "--folds", 2)
    if "trusted" in needs and valid_path is None:
        raise InputError(f"{asked.method} needs a trusted set: give VALID, or another --method")
    begin(f"reading {train_path.name}")
    rows = read_rows(train_path, wanted)
    check_budget(asked.budget, len(rows), True)
    trusted = rows
    if valid_path is not None:
        is_table = rows.columns is not None and valid_path.suffix.lower() in TABLES
        trusted = read_rows(
            valid_path,
            replace(
                wanted,
                features=tuple(rows.columns or ()) if is_table else wanted.features,
                drop=(),
                truth=None,
                labels_file=valid_labels,
                side="valid",
            ),
        )
    sets = put_together(rows, trusted, embedding)
    classes, y = np.unique(rows.labels, return_inverse=True)
    _check_classes(classes, trusted)
    class_folds(y, asked.folds, seed=asked.seed)  # refused before any training
    scaled = standardise(sets.train_features, sets.valid_features)
    plain = {"x": np.asarray(scaled.train, np.float32), "y": y.astype(np.int32)}
    begin(f"cross-fitting {asked.folds} models on {len(rows):,} rows")
    hidden = () if asked.model is Classifier.LOGISTIC else (_HIDDEN,)
    training = _Training(MLP(hidden, len(classes)), plain, len(classes), asked)
    out_of_fold = training.out_of_fold()
    begin("training what the method looks at")
    evidence = Evidence(
        plain,
        network_loss(training.module) if "loss_fn" in needs else None,
        jax.tree.map(lambda a: a[0], training.models("model", 1, _EPOCHS))
        if "params" in needs
        else None,
        {
            "x": np.asarray(scaled.valid, np.float32),
            "y": np.searchsorted(classes, trusted.labels).astype(np.int32),
        }
        if "trusted" in needs
        else None,
        out_of_fold,
        training.models("early", _EARLY, _EARLY_EPOCHS) if "checkpoints" in needs else None,
        jax.random.key(asked.seed),
    )
    begin(f"scoring by {asked.method}")
    suspects = find_mislabelled(evidence, name, budget=asked.budget)
    return Found(
        rows,
        suspects,
        classes,
        out_of_fold,
        confident_joint(out_of_fold, y),
        _mixture(suspects.suspicion),
        sets.note,
        asked,
    )


@dataclass(frozen=True, eq=False)
class _Training:
    module: Any
    train: dict[str, np.ndarray]
    num_classes: int
    asked: Asked

    def _options(self, part: str) -> dict[str, Any]:
        store = self.asked.store
        return {
            "optimizer": optax.adam(_RATE),
            "batch_size": _BATCH,
            "key": jax.random.key(self.asked.seed),
            "store": None if store is None else store / part,
            "progress": False,
        }

    def out_of_fold(self) -> np.ndarray:
        folds = {"num_folds": self.asked.folds, "seed": self.asked.seed}
        if self.asked.model is Classifier.LOGISTIC:
            # as strong a penalty, beside the mean loss, whatever the number of examples
            l2 = 0.01 * len(self.train["y"])
            features, labels = self.train["x"], self.train["y"]
            return cross_fit_logistic(features, labels, self.num_classes, l2=l2, **folds)
        return cross_fit(
            self.module,
            self.train,
            self.num_classes,
            num_epochs=_EPOCHS,
            **folds,
            **self._options("folds"),
        )

    def models(self, part: str, count: int, epochs: int) -> Any:
        return train_models(
            self.module,
            self.train,
            self.num_classes,
            num_models=count,
            num_epochs=epochs,
            **self._options(part),
        )


def _check_classes(classes: np.ndarray, trusted: Rows) -> None:
    check_classes(classes)
    unknown: Sequence[Any] = np.setdiff1d(trusted.labels, classes).tolist()
    if unknown:
        raise InputError(
            f"{trusted.name} has classes that the training set lacks: {listed(unknown)}"
        )


def _mixture(suspicion: np.ndarray) -> NoiseRate | None:
    try:
        return mixture_noise_rate(suspicion)
    except InputError:
        return None
