"""One set offered by several suppliers that differ in what they have and in how good it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from jaxinf.datasets.arrays import Examples, check_labelled
from jaxinf.datasets.label_noise import symmetric_label_noise
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class Suppliers:
    """Examples with their suppliers, and the truth about these.

    Attributes:
        examples: as given, with `"y"` replaced where a label is wrong, rows in the same order.
        source: int32[N], which of the S suppliers each example comes from.
        class_shares: float64[S, C], what share of each supplier's examples is truly of each class.
        noise: float64[S], what share of each supplier's labels is wrong.
        is_flipped: bool[N], which labels are wrong.
        original_labels: int32[N], the labels as they were.
    """

    examples: Examples
    source: Int[np.ndarray, " N"]
    class_shares: Float[np.ndarray, "S C"]
    noise: Float[np.ndarray, " S"]
    is_flipped: Bool[np.ndarray, " N"]
    original_labels: Int[np.ndarray, " N"]


def split_into_sources(
    examples: Mapping[str, Any],
    num_sources: int,
    *,
    concentration: float | None = None,
    label_noise: ArrayLike = 0.0,
    num_classes: int | None = None,
    seed: int,
) -> Suppliers:
    """Deal the examples out to suppliers, of unlike class mix and unlike quality.

    Other faults are planted in one supplier's rows by the function that makes them, such as
    `feature_noise` on `{key: value[source == s] for ...}`.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        num_sources: S, how many suppliers, 1 to N.
        concentration: None deals at random, S shares of equal size. A positive number deals out
            each class in shares drawn from a symmetric Dirichlet distribution: 100 is nearly even,
            1 uneven, and at 0.1 most classes go to one or two suppliers; suppliers then differ in
            size as well.
        label_noise: share of wrong labels, one number for all or float[S], each in [0, 1]. Wrong
            labels are drawn uniformly among the other classes.
        num_classes: C; by default the largest label plus one.
        seed: who gets what, and the wrong labels.

    Returns:
        The examples, their suppliers and the truth.

    Raises:
        InputError: for a number of suppliers, a concentration or a noise out of range, labels out
            of range, noise where there is one class only, or a supplier that was dealt nothing.

    Reference:
        Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019
        (arXiv 1905.12022), for the Dirichlet shares of each class.

    Example:
        >>> clean = {"x": np.zeros((12, 2), np.float32), "y": np.arange(12) % 3}
        >>> dealt = split_into_sources(clean, 3, label_noise=[0, 0, 0.5], seed=0)
        >>> np.bincount(dealt.source), dealt.noise
        (array([4, 4, 4]), array([0. , 0. , 0.5]))
    """
    host, count = check_labelled(examples, num_classes=num_classes)
    classes = int(host["y"].max()) + 1 if num_classes is None else num_classes
    if not 1 <= num_sources <= count:
        raise InputError(f"num_sources is {num_sources}: give 1 to {count}, the examples")
    rates = _rates(label_noise, num_sources, classes)
    deal, flip = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(deal)
    if concentration is None:
        source = rng.permutation(np.arange(count) % num_sources)
    else:
        source = _deal_classes(rng, host["y"], num_sources, concentration)
    sizes = np.bincount(source, minlength=num_sources)
    if not sizes.all():
        raise InputError(
            f"source {int(np.argmin(sizes))} was dealt no example: raise concentration "
            f"({concentration}) or take fewer sources"
        )
    labels = host["y"].copy()
    for supplier, draw in enumerate(flip.generate_state(num_sources).tolist()):
        rows = np.flatnonzero(source == supplier)
        if rates[supplier]:
            own = {key: value[rows] for key, value in host.items()}
            noisy = symmetric_label_noise(own, float(rates[supplier]), classes, draw)
            labels[rows] = noisy.examples["y"]
    is_flipped = labels != host["y"]
    counts = np.zeros((num_sources, classes))
    np.add.at(counts, (source, host["y"]), 1)
    return Suppliers(
        examples={**host, "y": labels},
        source=source.astype(np.int32),
        class_shares=counts / sizes[:, None],
        noise=np.bincount(source, is_flipped, num_sources) / sizes,
        is_flipped=is_flipped,
        original_labels=host["y"],
    )


def _rates(label_noise: ArrayLike, num_sources: int, num_classes: int) -> np.ndarray:
    rates = np.asarray(label_noise, np.float64)
    if rates.shape not in ((), (num_sources,)):
        raise InputError(
            f"label_noise has shape {rates.shape}: give one share, or one per source "
            f"[{num_sources}]"
        )
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError(f"label_noise is {label_noise}: give shares between 0 and 1")
    if rates.any() and num_classes < 2:
        raise InputError("label_noise needs another class for a label to go to: there is one only")
    return np.broadcast_to(rates, num_sources)


def _deal_classes(
    rng: np.random.Generator, labels: np.ndarray, num_sources: int, concentration: float
) -> np.ndarray:
    if not (concentration > 0 and np.isfinite(concentration)):
        raise InputError(f"concentration is {concentration}: give a positive number")
    present = np.unique(labels)
    shares = rng.dirichlet(np.full(num_sources, concentration), len(present))
    source = np.empty(len(labels), np.int64)
    for label, share in zip(present, shares, strict=True):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(share) * len(rows))
        # a row at position p goes to the first supplier whose part ends after it
        source[rows] = np.searchsorted(ends[:-1], np.arange(len(rows)), side="right")
    return source
