"""Test examples that models get right by one training example: reading them, finding the pairs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxinf.applications.memorisation import (
    InOutDifference,
    RetrainedOutputs,
    influence_scores,
    memorisation_scores,
)
from jaxinf.cli.features import Sets
from jaxinf.cli.rows import Rows, Wanted, listed
from jaxinf.cli.tables import TABLES, read_rows
from jaxinf.errors import InputError

MEMORISED, INFLUENTIAL, CERTAIN = 0.25, 0.15, 4.0
"""Feldman and Zhang's thresholds of memorisation and influence; standard errors of the latter."""

THRESHOLDS = (
    f"influence {INFLUENTIAL:g} or more, beyond {CERTAIN:g} standard errors, of a training example "
    f"with a memorisation score of {MEMORISED:g} or more"
)
"""When a pair counts, in words."""

# pairs judged together: some 300 MB
_AT_ONCE = 2**22


class Pairs(NamedTuple):
    """Pairs of a training and a test example that count, highest influence first.

    Attributes:
        train: int[P], rows of the training set.
        test: int[P], rows of the test set.
        influence: float[P].
        standard_error: float[P], of the influence.
        memorisation: float[P], of the training example.
    """

    train: Int[np.ndarray, " P"]
    test: Int[np.ndarray, " P"]
    influence: Float[np.ndarray, " P"]
    standard_error: Float[np.ndarray, " P"]
    memorisation: Float[np.ndarray, " P"]


@dataclass(frozen=True, eq=False)
class Owed:
    """What test examples owe to single training examples, by retraining.

    Attributes:
        rows: the test set as read.
        pairs: that count.
        by_chance: how many would count if the models' answers said nothing of their subsets.
        accuracy: of the models, on the test examples.
    """

    rows: Rows
    pairs: Pairs
    by_chance: int
    accuracy: float

    @property
    def summary(self) -> str:
        """A sentence or two."""
        count, tests = len(self.pairs.train), len(np.unique(self.pairs.test))
        if not count:
            return (
                f"No pair of a training and a test example counts ({THRESHOLDS}): pairs.parquet is "
                "empty."
            )
        pairs = "pair of a training and a test example counts" if count == 1 else "pairs count"
        return (
            f"{count:,} {pairs} ({THRESHOLDS}): some models get {tests:,} of {len(self.rows):,} "
            f"test examples ({tests / len(self.rows):.1%}) right because of one training example. "
            f"By chance, with the models' answers shuffled, {self.by_chance:,} would count."
        )


def read_test(path: Path, train: Rows, wanted: Wanted, labels: Path | None) -> Rows:
    """Read the test set in the way the training set was.

    Raises:
        InputError: as `read_rows`, or a .npy file without one of labels.
    """
    if path.suffix.lower() == ".npy" and labels is None:
        raise InputError(f"{path} holds no labels: name their .npy file with --test-labels")
    is_table = train.columns is not None and path.suffix.lower() in TABLES
    features = tuple(train.columns or ()) if is_table else wanted.features
    rows = read_rows(
        path, replace(wanted, features=features, drop=(), labels_file=labels, side="test")
    )
    if not len(rows):
        raise InputError(f"{path} has no rows")
    return rows


def check_test(test: Rows, classes: np.ndarray, sets: Sets) -> None:
    """Refuse test examples of other classes, and the training set itself.

    Raises:
        InputError: naming the classes.
    """
    if unknown := np.setdiff1d(test.labels, classes).tolist():
        raise InputError(f"{test.name} has classes that the training set lacks: {listed(unknown)}")
    same = np.array_equal(sets.train_features, sets.valid_features)
    if same and np.array_equal(sets.train_labels, sets.valid_labels):
        raise InputError(
            f"--test {test.name} is the training set itself: the influence of an example on "
            "itself is its memorisation score"
        )


def owed(outputs: RetrainedOutputs, test: Rows, seed: int) -> Owed:
    """The pairs that count, and how many would by chance."""
    assert outputs.test_correct is not None
    right = outputs.test_correct
    memorised = memorisation_scores(outputs.subsets, outputs.correct)
    # any influence is gone once each model answers for another's subset
    shuffled = np.random.default_rng(seed).permutation(right, axis=0)
    return Owed(
        test,
        find_pairs(outputs.subsets, memorised, right),
        len(find_pairs(outputs.subsets, memorised, shuffled).train),
        float(right.mean()),
    )


def find_pairs(subsets: np.ndarray, memorised: InOutDifference, right: np.ndarray) -> Pairs:
    """Pairs of a memorised training example and a test example that models get right by it.

    Args:
        subsets: bool[S, N], which training examples each model saw.
        memorised: scores [N] of the training examples.
        right: bool[S, M], whether each model is right about each test example.

    Returns:
        The pairs with an influence of `INFLUENTIAL`, beyond `CERTAIN` standard errors, of a
        training example with a memorisation score of `MEMORISED`.

    Example:
        >>> subsets = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], bool)
        >>> memorised = memorisation_scores(subsets, subsets)
        >>> found = find_pairs(subsets, memorised, subsets[:, :1])
        >>> found.train.tolist(), found.test.tolist(), found.influence.tolist()
        ([0], [0], [1.0])
    """
    known = np.flatnonzero(memorised.scores >= MEMORISED)
    # no other can be in a pair; a last column, in every subset, leaves none of them empty
    masks = np.column_stack([subsets[:, known], np.ones(len(subsets), bool)])
    step = max(1, _AT_ONCE // masks.shape[1])
    parts = []
    for start in range(0, right.shape[1], step):
        found = influence_scores(masks, right[:, start : start + step])
        scores, errors = found.scores[:, :-1], found.standard_errors[:, :-1]
        # an unknown error is NaN, which nothing is beyond
        at = np.nonzero((scores >= INFLUENTIAL) & (scores > CERTAIN * errors))
        parts.append((known[at[1]], at[0] + start, scores[at], errors[at]))
    train, test, influence, error = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((train, test, error, -influence))
    train = train[order]
    return Pairs(train, test[order], influence[order], error[order], memorised.scores[train])
