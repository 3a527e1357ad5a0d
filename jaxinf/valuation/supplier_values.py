"""Values of whole suppliers: which of several data sets to buy."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation import bootstrap_interval
from jaxinf.typing import AnyArray
from jaxinf.valuation.inputs import check_class_labels, check_features
from jaxinf.valuation.selection import check_values


class SourceValues(NamedTuple):
    """What each supplier is worth, higher = more worth having.

    Attributes:
        sources: [S], the suppliers met, sorted.
        values: float64[S], mean or sum of the values of the supplier's examples.
        low: float64[S], lower end of the interval; NaN for a supplier of one example.
        high: float64[S], upper end.
        counts: int64[S], how many examples each has.
    """

    sources: np.ndarray
    values: Float[np.ndarray, " S"]
    low: Float[np.ndarray, " S"]
    high: Float[np.ndarray, " S"]
    counts: Int[np.ndarray, " S"]


class SourceGains(NamedTuple):
    """What each supplier does to the distance between training and validation set.

    Attributes:
        sources: [S], the suppliers met, sorted.
        gains: float64[S], distance without the supplier minus distance with all, higher = more
            worth having; NaN when there is one supplier only.
        alone: float64[S], distance of the supplier's examples alone, lower = better.
        distance: distance of all examples together.
    """

    sources: np.ndarray
    gains: Float[np.ndarray, " S"]
    alone: Float[np.ndarray, " S"]
    distance: float


def source_values(
    values: ArrayLike,
    source_ids: ArrayLike,
    *,
    reduce: Literal["mean", "sum"] = "mean",
    confidence: float = 0.95,
    seed: int = 0,
) -> SourceValues:
    """Value suppliers by the values of their examples.

    Sign: higher = more worth having. The mean compares suppliers by the quality of an example of
    theirs; the sum, by all they have, and counts from zero: it suits values whose zero means "adds
    nothing". Intervals are bootstrap intervals over the supplier's examples: they say how far the
    figure depends on which examples it happened to send, and take the values for given.

    Args:
        values: float[N], higher = more worth having.
        source_ids: [N], each example's supplier: integers or text.
        reduce: `"mean"` or `"sum"`.
        confidence: level of the intervals, between 0 and 1.
        seed: of the resampling.

    Returns:
        Suppliers in the order of their names.

    Raises:
        InputError: for arrays that do not fit each other, NaN or infinities, an unknown `reduce`
            or a level outside (0, 1).

    Example:
        >>> found = source_values([1.0, 3.0, -1.0, -1.0], ["a", "a", "b", "b"])
        >>> found.sources.tolist(), found.values.tolist(), found.counts.tolist()
        (['a', 'b'], [2.0, -1.0], [2, 2])
    """
    if reduce not in ("mean", "sum"):
        raise InputError(f"reduce is {reduce!r}: give 'mean' or 'sum'")
    vector = check_values(values)
    sources, member = _sources(source_ids, len(vector))
    statistic = np.mean if reduce == "mean" else np.sum
    found = []
    for supplier in range(len(sources)):
        own = vector[member == supplier]
        estimate, low, high = float(statistic(own)), np.nan, np.nan
        if len(own) > 1:
            interval = bootstrap_interval(
                own, statistic, confidence=confidence, method="percentile", seed=seed
            )
            low, high = interval.low, interval.high
        found.append((estimate, low, high))
    estimates, low, high = np.asarray(found).T
    return SourceValues(sources, estimates, low, high, np.bincount(member))


def source_gains(
    distance: Callable[[AnyArray, AnyArray, AnyArray, AnyArray], ArrayLike],
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    source_ids: ArrayLike,
) -> SourceGains:
    """Value suppliers by what the whole distance would be without them, solved anew for each.

    The sum of an example's values is a first-order estimate of this. Here the distance is taken
    2 S + 1 times, so it holds however large a supplier is, and shows one whose data another has
    as well: both then gain little, though each is good alone.

    Args:
        distance: `(train_features, train_labels, valid_features, valid_labels) -> number`, such as
            `jaxinf.valuation.class_wise_distance` with its options fixed.
        train_features: float[N, ...].
        train_labels: int[N].
        valid_features: float[M, ...].
        valid_labels: int[M].
        source_ids: [N], each training example's supplier: integers or text.

    Returns:
        Gains, higher = more worth having, and each supplier's distance alone.

    Raises:
        InputError: for sets that do not fit each other, or a distance that is no finite number.

    Example:
        >>> of_means = lambda x, y, a, b: np.abs(np.mean(x) - np.mean(a))
        >>> x, y = np.float32([[0], [0], [6]]), np.zeros(3, int)
        >>> found = source_gains(of_means, x, y, x[:1], y[:1], ["good", "good", "bad"])
        >>> found.sources.tolist(), found.gains.tolist(), found.alone.tolist()
        (['bad', 'good'], [-2.0, 4.0], [6.0, 0.0])
    """
    count = check_features(train_features, "train_features").shape[0]
    check_class_labels(train_labels, count, "train")
    sources, member = _sources(source_ids, count)

    def of(rows: np.ndarray) -> float:
        found = distance(train_features[rows], train_labels[rows], valid_features, valid_labels)
        number = np.asarray(found)
        if number.shape != () or not np.isfinite(number):
            raise InputError(f"distance returned {found!r}: one finite number is needed")
        return float(number)

    whole = of(np.arange(count))
    alone = np.full(len(sources), whole)
    gains = np.full(len(sources), np.nan)
    if len(sources) > 1:
        for supplier in range(len(sources)):
            alone[supplier] = of(np.flatnonzero(member == supplier))
            gains[supplier] = of(np.flatnonzero(member != supplier)) - whole
    return SourceGains(sources, gains, alone, whole)


def _sources(source_ids: ArrayLike, count: int) -> tuple[np.ndarray, Int[np.ndarray, " N"]]:
    given = np.asarray(source_ids)
    if given.shape != (count,):
        raise InputError(f"source_ids have shape {given.shape}: give one per example, [{count}]")
    sources, member = np.unique(given, return_inverse=True)
    return sources, member
