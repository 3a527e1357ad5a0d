"""Which test examples were trained on, at a false-discovery rate."""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.stats import false_discovery_control

from jaxinf.applications.leakage.p_values import bulk_p_values, conformal_p_values
from jaxinf.applications.leakage.statistics import LeakStatistics, Statistic, gather
from jaxinf.errors import InputError


@functools.partial(
    register_dataclass,
    data_fields=("p_values", "q_values", "is_leak", "source", "score", "statistic"),
    meta_fields=("fdr", "num_calibration"),
)
@dataclass(frozen=True, eq=False)
class Leaks:
    """What was decided about each of K queries; a pytree.

    Attributes:
        p_values: float64[K], how often a clean query stands out at least so far.
        q_values: float64[K], the least false-discovery rate at which the query is called a leak
            (p-values adjusted by Benjamini and Hochberg).
        is_leak: bool[K], `q_values <= fdr`.
        source: int64[K], the training example that the query would be a copy of.
        score: float64[K], the score of that example. By influence, negative = training on it
            raises the query's loss: on a leak, a copy under another label.
        statistic: float64[K], by which queries were compared.
        fdr: the rate asked for.
        num_calibration: n, how many clean queries calibrated; None where the bulk did.
    """

    p_values: Float[np.ndarray, " K"]
    q_values: Float[np.ndarray, " K"]
    is_leak: Bool[np.ndarray, " K"]
    source: Int[np.ndarray, " K"]
    score: Float[np.ndarray, " K"]
    statistic: Float[np.ndarray, " K"]
    fdr: float
    num_calibration: int | None

    @property
    def fewest(self) -> int:
        """The least number of leaks that can be called: n clean queries give no p below 1/(n + 1).

        More clean queries lower it: a lone leak among K needs n + 1 of at least K / fdr.
        """
        if self.num_calibration is None:
            return 1
        return max(1, math.ceil(len(self.p_values) / ((self.num_calibration + 1) * self.fdr)))


def find_leaks(
    scores: ArrayLike | Iterable[ArrayLike],
    *,
    null_scores: ArrayLike | Iterable[ArrayLike] | None = None,
    fdr: float = 0.05,
    statistic: Statistic = "contrast",
    rest: int = 2,
    signed: bool = True,
) -> Leaks:
    """Decide which queries were trained on, and by which training example.

    Of the queries called leaks, a share of at most `fdr` is expected to be false, where the
    null holds: with `null_scores`, that clean queries and these are exchangeable; without, what
    `bulk_p_values` assumes.

    Args:
        scores: float[K, N], of any attributor or similarity, higher = more likely the source; or
            an iterable of chunks [k, N] of the queries, in order. The numbers do not depend on
            the chunks.
        null_scores: float[n, N] or chunks, the same scores of queries known not to be leaked, drawn
            like the others and apart from them.
        fdr: the false-discovery rate to hold, between 0 and 1.
        statistic: see `leak_statistics`.
        rest: see `leak_statistics`.
        signed: see `leak_statistics`; False finds relabelled copies by influence.

    Returns:
        `Leaks`.

    Raises:
        InputError: as `leak_statistics`, `conformal_p_values` and `bulk_p_values`; scores and
            null scores of different widths; an `fdr` outside (0, 1); or too few clean queries to
            call anything at that rate.

    Reference:
        Benjamini and Hochberg, "Controlling the False Discovery Rate", JRSS B 57, 1995.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean, scores = rng.normal(size=(99, 50)), rng.normal(size=(8, 50))
        >>> scores[0, 7] = scores[5, 3] = 50.0
        >>> found = find_leaks(scores, null_scores=clean, fdr=0.05)
        >>> np.flatnonzero(found.is_leak), found.source[found.is_leak]
        (array([0, 5]), array([7, 3]))
    """
    check_fdr(fdr)
    found, width = gather(scores, statistic, rest, signed)
    if null_scores is None:
        return decide_leaks(found, fdr=fdr)
    if isinstance(null_scores, np.ndarray | jax.Array) and not null_scores.size:
        raise InputError("there are no clean calibration queries: pass some, or none for the bulk")
    null, null_width = gather(null_scores, statistic, rest, signed)
    if null_width != width:
        raise InputError(
            f"scores are {width} wide and null_scores {null_width}: both must be against the same "
            "training examples"
        )
    return decide_leaks(found, null, fdr=fdr)


def decide_leaks(
    found: LeakStatistics, null: LeakStatistics | None = None, *, fdr: float = 0.05
) -> Leaks:
    """The second half of `find_leaks`, for statistics that were gathered along a stream.

    Args:
        found: of the queries.
        null: of queries known to be clean; None goes by the bulk of `found`.
        fdr: the false-discovery rate to hold.

    Returns:
        `Leaks`.

    Raises:
        InputError: as `find_leaks`.

    Example:
        >>> from jaxinf.applications.leakage import leak_statistics
        >>> null = leak_statistics(np.random.default_rng(1).normal(size=(60, 30)))
        >>> found = leak_statistics([[0.0, 9.0, 1.0, 2.0]])
        >>> decide_leaks(found, null).p_values.round(3).tolist()
        [0.016]
    """
    check_fdr(fdr)
    if null is None:
        p_values = bulk_p_values(found.statistic)
    else:
        check_calibration(len(null.statistic), fdr)
        p_values = conformal_p_values(found.statistic, null.statistic)
    q_values = false_discovery_control(p_values, method="bh")
    return Leaks(
        p_values,
        q_values,
        q_values <= fdr,
        found.source,
        found.score,
        found.statistic,
        float(fdr),
        None if null is None else len(null.statistic),
    )


def check_calibration(count: int, fdr: float) -> None:
    """Refuse so few clean queries that no p-value could be small enough.

    Raises:
        InputError: naming how many are needed.
    """
    if not count:
        raise InputError("there are no clean calibration queries: pass some, or none for the bulk")
    needed = math.ceil(1 / fdr * (1 - 1e-9)) - 1
    if count < needed:
        raise InputError(
            f"{count} clean calibration queries can call nothing at a false-discovery rate of "
            f"{fdr:g}: at least {needed} are needed"
        )


def check_fdr(fdr: float) -> None:
    """Refuse a false-discovery rate outside (0, 1).

    Raises:
        InputError: naming the value.
    """
    if not 0 < fdr < 1:
        raise InputError(f"fdr is {fdr}: a false-discovery rate lies between 0 and 1, such as 0.05")
