"""Wrong labels with known truth: symmetric, asymmetric, and by class or by instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from jaxinf.datasets.arrays import Examples, check_labelled, check_rate, draw_rows
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class LabelNoise:
    """Examples with wrong labels, and the truth about them.

    Attributes:
        examples: as given, with `"y"` replaced: int32[N], rows in the same order.
        is_flipped: bool[N], where the label differs from the original.
        original_labels: int32[N], the labels as they were.
    """

    examples: Examples
    is_flipped: Bool[np.ndarray, " N"]
    original_labels: Int[np.ndarray, " N"]


def symmetric_label_noise(
    examples: Mapping[str, Any], rate: float, num_classes: int, seed: int
) -> LabelNoise:
    """Give exactly `round(rate * N)` examples another class, uniformly among the others.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        rate: fraction of the examples whose label is changed.
        num_classes: how many classes there are, at least 2.
        seed: which examples, and which classes.

    Returns:
        The examples and the truth; inputs are shared with `examples`, not copied.

    Raises:
        InputError: for a rate outside [0, 1], fewer than 2 classes, or labels out of range.

    Example:
        >>> clean = {"x": np.zeros((10, 2), np.float32), "y": np.arange(10) % 3}
        >>> noisy = symmetric_label_noise(clean, rate=0.3, num_classes=3, seed=0)
        >>> int(noisy.is_flipped.sum()), int((noisy.examples["y"] != clean["y"]).sum())
        (3, 3)
    """
    check_rate(rate)
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: a label needs another class to go to")
    host, count = check_labelled(examples, num_classes=num_classes)
    rng = np.random.default_rng(seed)
    rows = draw_rows(rng, np.arange(count), rate)
    labels = host["y"].copy()
    labels[rows] = (labels[rows] + rng.integers(1, num_classes, len(rows))) % num_classes
    return _with_labels(host, labels)


def asymmetric_label_noise(
    examples: Mapping[str, Any], rate: float, mapping: int | ArrayLike, seed: int
) -> LabelNoise:
    """Give a fraction of the examples the class that theirs is mistaken for.

    Exactly `round(rate * n)` of the n examples whose class is mistaken for another are changed;
    a class that `mapping` sends to itself stays clean.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        rate: fraction, of the examples whose class is mistaken for another, that is changed.
        mapping: int[C], the class that each class is mistaken for; or the number of classes C,
            and each class is mistaken for the next, the last for the first.
        seed: which examples.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], labels or a mapping out of range, or a positive
            rate when the mapping leaves all labels as they are.

    Reference:
        Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017.

    Example:
        >>> clean = {"x": np.zeros((4, 1), np.float32), "y": np.array([0, 1, 2, 2])}
        >>> asymmetric_label_noise(clean, rate=1.0, mapping=[0, 2, 1], seed=0).examples["y"]
        array([0, 2, 1, 1], dtype=int32)
    """
    check_rate(rate)
    table = np.asarray(mapping)
    if table.dtype.kind not in "iu" or table.ndim > 1 or table.size == 0:
        raise InputError("mapping must be the number of classes, or one integer class per class")
    if table.ndim == 0:
        table = np.roll(np.arange(int(table)), -1)
    num_classes = len(table)
    if num_classes < 1 or table.min() < 0 or table.max() >= num_classes:
        raise InputError(f"mapping leads out of its {num_classes} classes: {table.tolist()}")
    host, _ = check_labelled(examples, num_classes=num_classes)
    target = table[host["y"]].astype(np.int32)
    movable = np.flatnonzero(target != host["y"])
    if rate > 0 and not movable.size:
        raise InputError("mapping sends every label to itself: no example can be changed")
    rows = draw_rows(np.random.default_rng(seed), movable, rate)
    labels = host["y"].copy()
    labels[rows] = target[rows]
    return _with_labels(host, labels)


def class_dependent_label_noise(
    examples: Mapping[str, Any], transition: ArrayLike, seed: int
) -> LabelNoise:
    """Draw each label anew from the row of a transition matrix that belongs to its class.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        transition: float[C, C], `transition[a, b]` = probability that an example of class a is
            labelled b; every row sums to 1. Numbers of changed labels are random.
        seed: the draws.

    Returns:
        The examples and the truth; `is_flipped` marks the labels that changed.

    Raises:
        InputError: for a matrix that is not square, has negative entries or rows that do not
            sum to 1 (within 1e-6), or labels out of its range.

    Reference:
        Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017.

    Example:
        >>> clean = {"x": np.zeros((4, 1), np.float32), "y": np.array([0, 1, 0, 1])}
        >>> class_dependent_label_noise(clean, [[0, 1], [0, 1]], seed=0).is_flipped
        array([ True, False,  True, False])
    """
    matrix = np.asarray(transition, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError(f"transition has shape {matrix.shape}: one row and column per class")
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-6):
        raise InputError("every row of transition must be probabilities that sum to 1")
    host, count = check_labelled(examples, num_classes=len(matrix))
    cumulative = np.cumsum(matrix, axis=1)
    cumulative /= cumulative[:, -1:]
    uniform = np.random.default_rng(seed).random(count)
    # how many classes end at or below the draw: one of probability 0 can never be hit
    labels = (cumulative[host["y"]] <= uniform[:, None]).sum(axis=1).astype(np.int32)
    return _with_labels(host, labels)


def instance_dependent_label_noise(
    examples: Mapping[str, Any],
    rate: float,
    logits: ArrayLike,
    seed: int,
    *,
    temperature: float = 1.0,
) -> LabelNoise:
    """Give exactly `round(rate * N)` examples the class that a model confuses theirs with.

    Human-like: hard examples are mislabelled more often, and as what they resemble. An example is
    drawn with weight `exp(-margin / temperature)`, its margin being the logit of its own class less
    that of the best other one, which it then gets.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        rate: fraction of the examples whose label is changed.
        logits: float[N, C], by a model that was trained on other examples; of one that was trained
            on these the margins would say what it learnt by heart. Log-probabilities serve too.
        seed: which examples.
        temperature: positive; the larger, the less the margin counts. At infinity all are drawn
            alike.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], logits that do not fit or are not finite, labels out
            of their range, or a temperature that is not positive.

    Reference:
        Chen et al., "Beyond Class-Conditional Assumption: A Primary Attempt to Combat
        Instance-Dependent Label Noise", AAAI 2021, make such noise from a network's averaged
        predictions; drawing without replacement is by Efraimidis and Spirakis, 2006.

    Example:
        >>> clean = {"x": np.zeros((2, 1), np.float32), "y": np.array([0, 0])}
        >>> instance_dependent_label_noise(clean, 0.5, [[9.0, 0, 0], [1, 0, 2]], 0).examples["y"]
        array([0, 2], dtype=int32)
    """
    check_rate(rate)
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise InputError(f"logits have shape {scores.shape}: finite [N, C] with C >= 2 are needed")
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}: it must be positive")
    host, count = check_labelled(examples, num_classes=scores.shape[1])
    if len(scores) != count:
        raise InputError(f"{len(scores)} rows of logits do not fit {count} examples")
    every = np.arange(count)
    others = scores.copy()
    others[every, host["y"]] = -np.inf
    margin = scores[every, host["y"]] - others.max(axis=1)
    # the largest of Gumbel-perturbed log-weights: a draw without replacement
    order = np.argsort(margin / temperature - np.random.default_rng(seed).gumbel(size=count))
    rows = order[: round(rate * count)]
    labels = host["y"].copy()
    labels[rows] = others.argmax(axis=1)[rows]
    return _with_labels(host, labels)


def _with_labels(host: Examples, labels: np.ndarray) -> LabelNoise:
    return LabelNoise({**host, "y": labels}, labels != host["y"], host["y"])
