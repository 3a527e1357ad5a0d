"""From statistics to p-values: how often would a query that was never trained on stand out so?"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.evaluation.checks import as_vector


def conformal_p_values(statistics: ArrayLike, null: ArrayLike) -> Float[np.ndarray, " K"]:
    """Rank of each statistic among those of queries known to be clean.

    `p = (1 + number of null statistics at least as large) / (n + 1)`. Valid for whatever
    distribution, as long as a clean query is exchangeable with the calibration queries; together
    with Benjamini–Hochberg the false-discovery rate then holds although all p-values share the
    calibration set.

    Args:
        statistics: number[K], larger = more suspicious.
        null: number[n], the same statistic of clean queries, apart from the K.

    Returns:
        float64[K], 1/(n + 1) to 1.

    Raises:
        InputError: for what is not [K] and [n], NaN, or no calibration query at all.

    Reference:
        Bates, Candès, Lei, Romano and Sesia, "Testing for Outliers with Conformal p-Values",
        Annals of Statistics 51, 2023.

    Example:
        >>> conformal_p_values([5.0, 2.0, 0.0], [1.0, 2.0, 3.0]).tolist()
        [0.25, 0.75, 1.0]
    """
    if not np.size(null):
        raise InputError("there are no clean calibration queries: pass some, or none for the bulk")
    ladder = np.sort(as_vector(null, "null"))
    below = np.searchsorted(ladder, as_vector(statistics, "statistics"), side="left")
    return (1 + len(ladder) - below) / (len(ladder) + 1)


def bulk_p_values(statistics: ArrayLike) -> Float[np.ndarray, " K"]:
    """p-values from the queries themselves, where none is known to be clean.

    It assumes, and cannot check, that at most a quarter of the queries leaked, and that the
    statistic of clean queries falls off beyond its median no slower than exponentially, at the
    rate at which it falls from the median to the upper quartile. Leaks among the queries make it
    more cautious; a heavier tail breaks it. Clean calibration queries need neither assumption.

    Args:
        statistics: number[K], larger = more suspicious; infinities have p = 0.

    Returns:
        float64[K]: `½ · 2^(−(s − median) / (upper quartile − median))` above the median, the
        share of queries at least as large below it.

    Raises:
        InputError: for fewer than 20 queries, NaN, a quarter or more of them infinite, or a
            median that equals the upper quartile.

    Example:
        >>> p = bulk_p_values(np.arange(101.0))
        >>> round(float(p[75]), 4), round(float(p[100]), 4), float(p[0])
        (0.25, 0.125, 1.0)
    """
    values = as_vector(statistics, "statistics")
    if len(values) < 20:
        raise InputError(
            f"{len(values)} queries are too few to know the bulk by: pass clean calibration "
            "queries, or at least 20 queries"
        )
    with np.errstate(invalid="ignore"):
        median, quartile = np.quantile(values, [0.5, 0.75])
        spread = quartile - median
    if not (np.isfinite(spread) and spread > 0):
        raise InputError(
            "the bulk of the statistics has no spread (half the queries stand out alike, or a "
            "quarter infinitely): pass clean calibration queries"
        )
    share_at_least = 1 - np.searchsorted(np.sort(values), values, side="left") / len(values)
    tail = np.exp2(-1 - np.maximum(values - median, 0) / spread)
    return np.where(values > median, tail, np.maximum(share_at_least, 0.5))
