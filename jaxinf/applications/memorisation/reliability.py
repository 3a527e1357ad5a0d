"""How far retrained scores can be trusted: what another such run would agree on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from jaxinf.applications.memorisation.scores import memorisation_scores
from jaxinf.errors import InputError, check_count
from jaxinf.evaluation import spearman


@dataclass(frozen=True)
class Reliability:
    """What the noise of a finite number of models leaves of the scores.

    Attributes:
        half: mean rank correlation between the scores of two halves of the models.
        full: the same expected of two runs with as many models as there are, by Spearman and
            Brown's formula `2 r / (1 + r)`.
        ceiling: the correlation with these scores that the exact ones would reach, `sqrt(full)`.
            No estimate can be told to be better.
        num_splits: how many divisions into halves the mean is over.
        num_examples: examples with a score in both halves, on average.
    """

    half: float
    full: float
    ceiling: float
    num_splits: int
    num_examples: float


def split_half_reliability(
    subsets: ArrayLike, outputs: ArrayLike, *, num_splits: int = 10, seed: int
) -> Reliability:
    """Divide the models into random halves and compare the memorisation scores of the two.

    Args:
        subsets: bool[S, N], as in `memorisation_scores`; at least 4 subsets.
        outputs: bool or float[S, N], likewise.
        num_splits: divisions.
        seed: the divisions.

    Returns:
        `Reliability`; NaN where one half's scores are all alike, as with too few models.

    Raises:
        InputError: as `memorisation_scores`, and for fewer than 4 subsets.

    Reference:
        Spearman, "Correlation calculated from faulty data", British Journal of Psychology 3, 1910.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> subsets = rng.random((400, 50)) < 0.5
        >>> memorised = np.linspace(0, 1, 50)
        >>> right = subsets | (rng.random((400, 50)) > memorised)
        >>> found = split_half_reliability(subsets, right, seed=0)
        >>> 0.9 < found.half < found.full < found.ceiling < 1
        True
    """
    check_count(num_splits, "num_splits")
    masks, values = np.asarray(subsets), np.asarray(outputs)
    memorisation_scores(masks, values)  # its checks
    if len(masks) < 4:
        raise InputError(f"{len(masks)} subsets: two halves need at least 4, better 100")
    rng = np.random.default_rng(seed)
    found, counts = [], []
    for _ in range(num_splits):
        order = rng.permutation(len(masks))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        pair = [memorisation_scores(masks[rows], values[rows]).scores for rows in halves]
        known = np.isfinite(pair[0]) & np.isfinite(pair[1])
        counts.append(int(known.sum()))
        if known.sum() > 1:
            found.append(spearman(pair[0][None, known], pair[1][None, known])[0])
    half = float(np.mean(found)) if found else float("nan")
    full = 2 * half / (1 + half) if half > -1 else float("nan")
    ceiling = float(np.sqrt(max(full, 0.0))) if np.isfinite(full) else float("nan")
    return Reliability(half, full, ceiling, num_splits, float(np.mean(counts)))


def tie_ceiling(scores: ArrayLike) -> float:
    """The highest Spearman correlation that scores without ties can have with these.

    Many training examples are right in every model, seen or not, and share the score 0. An
    estimate that gives each its own number is then below 1 even if all its ranks are right.

    Args:
        scores: float[N]; NaN are left out.

    Returns:
        `sqrt(1 − Σ (t³ − t) / (n³ − n))` over the groups of t tied scores.

    Raises:
        InputError: for fewer than two scores.

    Reference:
        Kendall and Gibbons, Rank Correlation Methods, 1990, section 3.8 (the variance of tied
        ranks).

    Example:
        >>> tie_ceiling([1.0, 2.0, 3.0]), round(tie_ceiling([0.0, 0.0, 0.0, 1.0]), 3)
        (1.0, 0.775)
    """
    values = np.asarray(scores, np.float64).ravel()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        raise InputError(f"{len(values)} scores: a correlation needs at least 2")
    ties = np.unique(rankdata(values), return_counts=True)[1].astype(np.float64)
    count = float(len(values))
    return float(np.sqrt(1 - np.sum(ties**3 - ties) / (count**3 - count)))
