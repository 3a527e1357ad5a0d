"""How far a figure can be trusted: intervals by bootstrap, by Student's t, and exact binomial."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_vector, check_confidence, check_same_shape

# entries resampled at once: keeps a bootstrap of a large sample within tens of MB
_ENTRIES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its two-sided confidence interval.

    Attributes:
        estimate: the figure itself.
        low: lower end.
        high: upper end.
        confidence: the level, such as 0.95.
    """

    estimate: float
    low: float
    high: float
    confidence: float


def bootstrap_interval(
    values: ArrayLike | tuple[ArrayLike, ...],
    statistic: Callable[..., Any] = np.mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    method: Literal["BCa", "percentile"] = "BCa",
    seed: int,
) -> Interval:
    """Interval of a statistic when the examples (or queries, or seeds) are drawn anew.

    Where BCa is undefined, as for a statistic that is the same in all resamples, the percentile
    interval takes its place.

    Args:
        values: float[N], one number per independent unit; or a tuple of arrays [N], resampled
            together row by row and handed to the statistic one after another.
        statistic: `statistic(values) -> float`, or `statistic(*values)` for a tuple. One with an
            `axis` argument, such as `np.mean`, is called on many resamples at once.
        confidence: level, between 0 and 1.
        num_resamples: how many resamples, at least 100.
        method: bias-corrected and accelerated (`"BCa"`), whose jackknife leaves out each of the
            N units once, or `"percentile"`, the cheaper one for tens of thousands of units.
        seed: the resamples.

    Returns:
        The statistic of the values, and its interval.

    Raises:
        InputError: for fewer than 2 values, NaN or infinities, arrays of different lengths, a
            level outside (0, 1), too few resamples, or an unknown method.

    Reference:
        Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987; as in scipy.stats.bootstrap.

    Example:
        >>> interval = bootstrap_interval(np.arange(100.0), seed=0)
        >>> interval.estimate, 43 < interval.low < 45, 54 < interval.high < 56
        (49.5, True, True)
    """
    check_confidence(confidence)
    if num_resamples < 100:
        raise InputError(f"num_resamples is {num_resamples}: at least 100, better thousands")
    if method not in ("BCa", "percentile"):
        raise InputError(f"method is {method!r}: give 'BCa' or 'percentile'")
    data = _columns(values)
    estimate = float(statistic(*data))
    if all((column == column[0]).all() for column in data):
        return Interval(estimate, estimate, estimate, confidence)

    def of_rows(rows, **axis):
        return statistic(*(column[rows] for column in data), **axis)

    # row numbers are resampled in place of values, so that columns keep their dtypes
    rows = (np.arange(len(data[0])),)
    options: dict[str, Any] = {
        "vectorized": _takes_axis(statistic),
        "confidence_level": confidence,
        "batch": max(1, _ENTRIES_AT_ONCE // len(data[0])),
        # named rng since SciPy 1.15, which takes the old name as well
        "random_state": np.random.default_rng(seed),
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # a degenerate distribution is answered below, not warned about
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(rows, of_rows, n_resamples=num_resamples, method=method, **options)
        low, high = result.confidence_interval
        if not np.isfinite([low, high]).all():
            options |= {"n_resamples": 0, "bootstrap_result": result}
            result = stats.bootstrap(rows, of_rows, method="percentile", **options)
            low, high = result.confidence_interval
    return Interval(estimate, float(low), float(high), confidence)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int,
) -> Interval:
    """Interval of `statistic(a) - statistic(b)` for two methods judged on the same units.

    Rows are drawn together, so what makes a query hard for both cancels. An interval that
    holds 0 does not tell the methods apart.

    Args:
        a: float[N], one figure per query for the first method.
        b: float[N], for the second, in the same order.
        statistic: `statistic(values) -> float`.
        confidence: level, between 0 and 1.
        num_resamples: how many resamples, at least 100.
        seed: the resamples.

    Returns:
        The difference, positive where the first is higher, and its interval.

    Raises:
        InputError: as `bootstrap_interval`.

    Example:
        >>> b = np.random.default_rng(0).normal(size=50)
        >>> interval = paired_bootstrap(b + 1, b, seed=0)
        >>> round(interval.low, 6), round(interval.high, 6)
        (1.0, 1.0)
    """
    if _takes_axis(statistic):
        difference = lambda a, b, axis=-1: statistic(a, axis=axis) - statistic(b, axis=axis)
    else:
        difference = lambda a, b: statistic(a) - statistic(b)

    return bootstrap_interval(
        (a, b), difference, confidence=confidence, num_resamples=num_resamples, seed=seed
    )


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean, for a handful of runs with different seeds.

    Args:
        values: float[n], one figure per run, at least 2; taken as independent and normal.
        confidence: level, between 0 and 1.

    Returns:
        The mean and its interval; of width 0 if all runs agree.

    Raises:
        InputError: for fewer than 2 values, NaN, or a level outside (0, 1).

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.estimate, round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    check_confidence(confidence)
    runs = _columns(np.asarray(values))[0].astype(np.float64)
    mean = float(runs.mean())
    reach = float(stats.t.ppf((1 + confidence) / 2, len(runs) - 1) * stats.sem(runs))
    return Interval(mean, mean - reach, mean + reach, confidence)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of a proportion: its coverage is never below the level.

    Args:
        successes: how many of the trials succeeded, 0 to `trials`.
        trials: how many independent trials, at least 1.
        confidence: level, between 0 and 1.

    Returns:
        The proportion and its interval, within [0, 1].

    Raises:
        InputError: for counts out of range, or a level outside (0, 1).

    Reference:
        Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case
        of the Binomial", Biometrika 26, 1934; as in scipy.stats.binomtest.

    Example:
        >>> interval = clopper_pearson(0, 100)
        >>> interval.low, round(interval.high, 4)
        (0.0, 0.0362)
    """
    check_confidence(confidence)
    if int(trials) != trials or int(successes) != successes:
        raise InputError(f"{successes} successes in {trials} trials: give whole numbers")
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(
            f"{successes} successes in {trials} trials: give 0 to trials, of 1 or more"
        )
    ends = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="exact")
    return Interval(float(successes / trials), float(ends.low), float(ends.high), confidence)


def _columns(values: ArrayLike | tuple[ArrayLike, ...]) -> tuple[np.ndarray, ...]:
    given = values if isinstance(values, tuple) else (values,)
    if not given:
        raise InputError("values hold no array")
    columns = tuple(np.asarray(column) for column in given)  # a mask stays a mask
    for column in columns:
        if not np.isfinite(as_vector(column, "values")).all():
            raise InputError("values hold infinities: no interval can be given")
        check_same_shape(columns[0], column, "the arrays in values")
    if len(columns[0]) < 2:
        raise InputError("values hold one number: an interval needs at least 2")
    return columns


def _takes_axis(statistic: Callable[..., Any]) -> bool:
    try:
        return "axis" in inspect.signature(statistic).parameters
    except ValueError:  # some compiled functions have no signature
        return False
