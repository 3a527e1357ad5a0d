"""How far one training example stands out among all, for each query."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_count
from jaxinf.evaluation.checks import as_matrix

Statistic = Literal["contrast", "gap", "ratio", "top"]


class LeakStatistics(NamedTuple):
    """One figure per query; all that is kept of a row of scores.

    Attributes:
        statistic: float64[K], the larger, the more one training example stands out.
        source: int64[K], that training example: the highest score, ties by the lower index.
        score: float64[K], its score, sign kept.
    """

    statistic: Float[np.ndarray, " K"]
    source: Int[np.ndarray, " K"]
    score: Float[np.ndarray, " K"]


def leak_statistics(
    scores: ArrayLike | Iterable[ArrayLike],
    *,
    statistic: Statistic = "contrast",
    rest: int = 2,
    signed: bool = True,
) -> LeakStatistics:
    """Reduce scores to one figure per query. Each row by itself: chunks give the same numbers.

    With s₁ ≥ s₂ ≥ ... the scores of one query in order,

    `contrast = (s₁ − s_rest) / (s_rest − median)`,

    which neither a shift nor a scale of a query's scores changes: how far the best stands out
    from its runners-up, in units of how far those stand out from the crowd. It is 0 where
    s₁ = s_rest, and infinite where only s₁ stands out at all. Of minus squared distances,

    `ratio = s_rest / s₁`

    says more: how many times farther (squared) the runner-up is than the nearest. Of scores that
    compare across queries, such as cosines or those of `reference_influence`,

    `gap = s₁ − s_rest`

    does: it is not divided by how far the runners-up stand out, which is small by chance for some
    clean queries.

    Args:
        scores: float[K, N], higher = more likely the source; or an iterable of such with any
            number of rows each, as `score_queries` yields them. −inf marks a training example
            that is no candidate for a query (itself, say).
        statistic: `"contrast"`; `"ratio"` for minus squared distances; for scores that compare
            across queries `"gap"`, or `"top"`: s₁ alone.
        rest: with which score the best is compared, from 2. A training set that holds an example
            r times needs r + 1.
        signed: False goes by the absolute scores, for queries that may carry another label than
            their source: influence on those is strong and negative.

    Returns:
        `LeakStatistics`; `score` keeps its sign.

    Raises:
        InputError: no scores at all, NaN, chunks of different widths, fewer than `rest` + 1
            training examples, a query with fewer candidates than that, unknown settings, or a
            ratio of scores that are positive or taken absolutely.

    Example:
        >>> found = leak_statistics([[0.0, 9.0, 3.0, 1.0, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
        >>> found.statistic.tolist(), found.source.tolist(), found.score.tolist()
        ([6.0, 1.0], [1, 0], [9.0, 5.0])
    """
    return gather(scores, statistic, rest, signed)[0]


def gather(
    scores: Any, statistic: Statistic, rest: int, signed: bool
) -> tuple[LeakStatistics, int]:
    """`leak_statistics`, and how many training examples there are."""
    if statistic not in get_args(Statistic):
        raise InputError(f"statistic is {statistic!r}: give 'contrast', 'gap', 'ratio' or 'top'")
    if statistic == "ratio" and not signed:
        raise InputError("a ratio is of minus squared distances, which have no other sign to drop")
    check_count(rest, "rest", 2)
    parts, width = [], 0
    for chunk in _chunks(scores):
        matrix = as_matrix(chunk, "scores")
        if width not in (0, matrix.shape[1]):
            raise InputError(
                f"chunks of scores are {width} and {matrix.shape[1]} wide: all queries must be "
                "scored against the same training examples"
            )
        width = matrix.shape[1]
        parts.append(_of_rows(matrix, statistic, rest, signed))
    if not parts:
        raise InputError("there are no scores: at least one query is needed")
    return LeakStatistics(*(np.concatenate(c) for c in zip(*parts, strict=True))), width


def _chunks(scores: Any) -> Iterable[Any]:
    """A matrix is one chunk; other iterables are chunks themselves."""
    if hasattr(scores, "shape"):
        return [scores]
    if isinstance(scores, list | tuple):
        return [scores] if scores and np.ndim(scores[0]) == 1 else scores
    return scores


def _of_rows(matrix: np.ndarray, statistic: str, rest: int, signed: bool) -> LeakStatistics:
    num_examples = matrix.shape[1]
    if num_examples <= rest:
        raise InputError(
            f"there are {num_examples} training examples: with rest={rest} at least {rest + 1} "
            "are needed"
        )
    strength = matrix if signed else np.where(np.isneginf(matrix), matrix, np.abs(matrix))
    if np.isposinf(strength).any():
        raise InputError("scores hold infinities: only -inf, for no candidate, has a meaning")
    source = np.argmax(strength, axis=1)
    at = source[:, None]
    score = np.take_along_axis(matrix, at, axis=1)[:, 0]
    best = np.take_along_axis(strength, at, axis=1)[:, 0]
    if statistic == "top":
        runner_up, figure = best, best
    else:
        middle = (num_examples - 1) // 2
        kept = np.partition(strength, (middle, num_examples - rest), axis=1)
        runner_up, centre = kept[:, num_examples - rest], kept[:, middle]
        with np.errstate(invalid="ignore"):
            gain, scale = best - runner_up, runner_up - centre
        stands_alone = np.where(gain > 0, np.inf, 0.0)
        figure = np.where(scale > 0, gain / np.where(scale > 0, scale, 1), stands_alone)
        if statistic == "gap":
            figure = gain
        elif statistic == "ratio":
            figure = _ratio(best, runner_up, centre)
    if not np.isfinite(runner_up).all():
        query = int(np.argmin(np.isfinite(runner_up)))
        raise InputError(
            f"query {query} has fewer than {rest} candidates: a row of -inf has no source"
        )
    return LeakStatistics(figure, source, score)


def _ratio(best: np.ndarray, runner_up: np.ndarray, centre: np.ndarray) -> np.ndarray:
    # a distance of 0 that was computed from products may come out a little above
    rounding = 1e-3 * np.abs(centre)
    if (best > rounding).any():
        query = int(np.argmax(best > rounding))
        raise InputError(
            f"query {query} scores {best[query]:g}: a ratio is of minus squared distances, which "
            "are not positive"
        )
    near, next_near = np.minimum(best, 0), np.minimum(runner_up, 0)
    alone = np.where(next_near < 0, np.inf, 1.0)
    return np.where(near < 0, next_near / np.where(near < 0, near, -1), alone)
