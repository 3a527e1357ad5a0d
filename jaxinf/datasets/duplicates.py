"""Training examples copied where they should not be, and where each copy came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Int

from jaxinf.datasets.arrays import Examples, check_images, check_labelled
from jaxinf.datasets.transforms import NAMED, Transform
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class Duplicates:
    """Examples with copies appended, and the truth about them.

    Attributes:
        examples: the given rows in their order, then the copies.
        source: int64[N + count], for a copy the row it was copied from, else -1.
        original_labels: int32[N + count], the labels before any relabelling.
    """

    examples: Examples
    source: Int[np.ndarray, " N"]
    original_labels: Int[np.ndarray, " N"]


@register_dataclass
@dataclass(frozen=True, eq=False)
class PlantedKinds(Duplicates):
    """Copies of several kinds, one kind after another.

    Attributes:
        kind: text[N + count], the kind of each copy, "" for the rows that are none.
    """

    kind: np.ndarray


KINDS = ("exact", "crop", "shift", "jpeg", "brightness", "relabelled")
"""What leaks are made of, from the easiest to find to those that pixels alone see through."""


def plant_duplicates(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    count: int,
    seed: int | Sequence[int],
    *,
    near: str | Transform | None = None,
    relabel_among: int | None = None,
) -> Duplicates:
    """Copy `count` different training examples into the test set, behind its own rows.

    Exact copies are found by hashing or by nearest neighbours alone: such a baseline belongs
    beside every score that is judged by them.

    Args:
        train: `{"x": [N, ...], "y": int[N]}`, the source of the copies.
        test: the same keys and row shapes; M rows.
        count: how many copies, 1 to N.
        seed: which examples, and the draws of `near` and of the new labels.
        near: change each copy a little: `"shift"`, `"noise"`, `"brightness"`, `"crop"` or
            `"jpeg"` (images only), or a function `(x[count, ...], rng) -> x`. By default the
            copies are exact. An image of one flat colour may come out unchanged.
        relabel_among: number of classes; when given, each copy gets another class than its
            own, drawn uniformly.

    Returns:
        The test set with M + count rows; `source` gives for each the training row it was
        copied from, or -1.

    Raises:
        InputError: for a count out of range, sets of different keys, shapes or dtypes, an
            unknown name, a function that changes the shape, or labels out of range.

    Example:
        >>> train = {"x": np.arange(6.0, dtype=np.float32)[:, None], "y": np.arange(6)}
        >>> test = {"x": np.zeros((2, 1), np.float32), "y": np.zeros(2, int)}
        >>> planted = plant_duplicates(train, test, count=3, seed=0)
        >>> planted.source
        array([-1, -1,  3,  4,  5])
        >>> planted.examples["x"][:, 0]
        array([0., 0., 3., 4., 5.], dtype=float32)
    """
    train_host, num_train = check_labelled(train, "train", relabel_among)
    test_host, num_test = check_labelled(test, "test")
    _check_alike(train_host, test_host)
    if not 1 <= count <= num_train:
        raise InputError(f"count is {count}: copy between 1 and {num_train} of the examples")
    if relabel_among is not None and relabel_among < 2:
        raise InputError(f"relabel_among is {relabel_among}: another class needs at least 2")
    transform = _transform(near, train_host["x"])
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(num_train, size=count, replace=False))
    copies = {key: value[rows] for key, value in train_host.items()}
    labels = copies["y"]
    if transform is not None:
        changed = np.asarray(transform(copies["x"], rng))
        if changed.shape != copies["x"].shape:
            raise InputError(
                f"near turned copies of shape {copies['x'].shape} into {changed.shape}: it must "
                "keep the shape"
            )
        copies["x"] = changed.astype(copies["x"].dtype)
    if relabel_among is not None:
        step = rng.integers(1, relabel_among, count, dtype=np.int32)
        copies["y"] = (labels + step) % np.int32(relabel_among)
    return Duplicates(
        {key: np.concatenate([test_host[key], copies[key]]) for key in test_host},
        np.concatenate([np.full(num_test, -1), rows]),
        np.concatenate([test_host["y"], labels]),
    )


def duplicate_within(
    examples: Mapping[str, Any], count: int, seed: int, *, near: str | Transform | None = None
) -> Duplicates:
    """Append copies of `count` different examples to their own set.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        count: how many copies, 1 to N.
        seed: which examples, and the draws of `near`.
        near: as in `plant_duplicates`.

    Returns:
        N + count rows; `source` gives for each copy the row it doubles, -1 for the first N.

    Raises:
        InputError: as `plant_duplicates`.

    Example:
        >>> doubled = duplicate_within({"x": np.eye(3, dtype=np.float32), "y": np.arange(3)}, 1, 0)
        >>> doubled.source
        array([-1, -1, -1,  2])
    """
    return plant_duplicates(examples, examples, count, seed, near=near)


def plant_kinds(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    count: int,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    num_classes: int | None = None,
) -> PlantedKinds:
    """Copy different training examples into the test set, `count` of them in each of some kinds.

    Args:
        train: `{"x": [N, ...], "y": int[N]}`, the source of the copies.
        test: the same keys and row shapes; M rows.
        count: how many copies of each kind; all kinds together at most N.
        seed: which examples, and every other draw.
        kinds: of `"exact"`, `"relabelled"` (the same input under another class) and the names
            that `near` of `plant_duplicates` takes.
        num_classes: of the new labels; default one more than the largest label of `train`.

    Returns:
        The test set, then the copies kind after kind. No training example is copied twice.

    Raises:
        InputError: as `plant_duplicates`, and for an unknown kind, none at all or one named
            twice.

    Example:
        >>> train = {"x": np.arange(8, dtype=np.uint8).reshape(2, 2, 2), "y": np.arange(2)}
        >>> planted = plant_kinds(train, train, 1, seed=0, kinds=("exact", "relabelled"))
        >>> planted.kind.tolist(), planted.source.tolist()
        (['', '', 'exact', 'relabelled'], [-1, -1, 0, 1])
    """
    known = ("exact", "relabelled", *NAMED)
    if not kinds or len(set(kinds)) < len(kinds) or set(kinds) - set(known):
        raise InputError(f"kinds is {list(kinds)}: give some of {', '.join(known)}, each once")
    host, num_train = check_labelled(train, "train", num_classes)
    test_host, num_test = check_labelled(test, "test")
    if not 1 <= count <= num_train // len(kinds):
        raise InputError(
            f"count is {count}: {len(kinds)} kinds of {num_train} examples allow 1 to "
            f"{num_train // len(kinds)} copies of each"
        )
    classes = int(host["y"].max()) + 1 if num_classes is None else num_classes
    rows = np.random.default_rng(seed).permutation(num_train)[: count * len(kinds)]
    examples, source, labels = test_host, [np.full(num_test, -1)], [test_host["y"]]
    for number, kind in enumerate(kinds):
        own = np.sort(rows[number * count : (number + 1) * count])
        planted = plant_duplicates(
            {key: value[own] for key, value in host.items()},
            examples,
            count,
            [seed, number],
            near=kind if kind in NAMED else None,
            relabel_among=classes if kind == "relabelled" else None,
        )
        examples = planted.examples
        source.append(own)
        labels.append(planted.original_labels[-count:])
    return PlantedKinds(
        examples,
        np.concatenate(source),
        np.concatenate(labels),
        np.repeat(np.array(["", *kinds]), [num_test, *[count] * len(kinds)]),
    )


def _transform(near: str | Transform | None, inputs: np.ndarray) -> Transform | None:
    if not isinstance(near, str):
        return near
    if near not in NAMED:
        raise InputError(f"near is {near!r}: give a function or one of {', '.join(NAMED)}")
    check_images(inputs, "train['x']")
    return NAMED[near]


def _check_alike(train: Examples, test: Examples) -> None:
    if set(train) != set(test):
        raise InputError(f"train holds {sorted(train)} and test {sorted(test)}: the same is needed")
    for key, value in train.items():
        if value.shape[1:] != test[key].shape[1:] or value.dtype != test[key].dtype:
            raise InputError(
                f"rows of train[{key!r}] are {value.dtype}{list(value.shape[1:])} and of "
                f"test[{key!r}] {test[key].dtype}{list(test[key].shape[1:])}: the same is needed"
            )
