"""Memorisation and influence scores from models of many subsets: trained on it, or not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.influence.ground_truth.subsets import check_subsets


@dataclass(frozen=True)
class InOutDifference:
    """How models that were trained on an example differ from those that were not.

    Attributes:
        scores: float64[N] or [M, N], `mean_in - mean_out`; NaN for an example that is in every
            subset or in none: nothing can be said of it, and 0 would be a lie.
        standard_errors: float64, of the scores' shape: of the models drawn. NaN where fewer than
            two models are on a side; 0 where all models of each side agree, which with few models
            is no certainty.
        mean_in: float64, of the scores' shape, mean output of the models trained with it.
        mean_out: float64, of the scores' shape, mean output of the models trained without it.
        num_in: int64[N], models trained with it.
        num_out: int64[N], models trained without it.
    """

    scores: Float[np.ndarray, "..."]
    standard_errors: Float[np.ndarray, "..."]
    mean_in: Float[np.ndarray, "..."]
    mean_out: Float[np.ndarray, "..."]
    num_in: Int[np.ndarray, " N"]
    num_out: Int[np.ndarray, " N"]

    @property
    def num_undefined(self) -> int:
        """Examples that are in every subset or in none, whose scores are NaN."""
        return int(np.sum((self.num_in == 0) | (self.num_out == 0)))


def memorisation_scores(subsets: ArrayLike, outputs: ArrayLike) -> InOutDifference:
    """P(correct on i | i trained on) − P(correct on i | i left out), for every training example.

    Sign: positive = the models are right about the example because they have seen it. Near 1: it
    is known by heart. Near 0: it follows from the others, or is not fitted even when it is seen.

    Args:
        subsets: bool[S, N], which of the N training examples each of the S models saw.
        outputs: bool or float[S, N], each model on each training example: whether it is right (as
            in the paper), or the probability of the right class, which needs fewer models.

    Returns:
        `InOutDifference` with arrays [N].

    Raises:
        InputError: for shapes that do not fit, fewer than two subsets, or outputs that are NaN or
            infinite, as those of a model whose training diverged.

    Reference:
        Feldman and Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020, eq. 1 and
        section 2.1.

    Example:
        >>> subsets = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
        >>> right = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
        >>> memorisation_scores(subsets, right).scores
        array([1., 0., 1.])
    """
    masks, values = _checked(subsets, outputs)
    if values.shape != masks.shape:
        raise InputError(
            f"outputs {list(values.shape)} do not fit subsets {list(masks.shape)}: each model's "
            "output on every training example is needed, [S, N]"
        )
    inside = masks.astype(np.float64)
    sums = [np.sum(side * values, axis=0) for side in (inside, 1 - inside)]
    squares = [np.sum(side * values**2, axis=0) for side in (inside, 1 - inside)]
    return _difference(masks, sums, squares)


def influence_scores(subsets: ArrayLike, outputs: ArrayLike) -> InOutDifference:
    """P(correct on j | i trained on) − P(correct on j | i left out), for test example j.

    The influence of a training example on itself is its memorisation score.

    Sign: positive = training on i makes models right about j (a proponent).

    Args:
        subsets: bool[S, N], which of the N training examples each of the S models saw.
        outputs: bool or float[S, M], each model on each of M test examples: whether it is right,
            or the probability of the right class.

    Returns:
        `InOutDifference` with arrays [M, N]. Its standard errors are for one pair: of M · N of
        them many are far out by chance, so a threshold belongs above several standard errors.

    Raises:
        InputError: as `memorisation_scores`.

    Reference:
        Feldman and Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020, eq. 2.

    Example:
        >>> subsets = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
        >>> influence_scores(subsets, subsets[:, :1]).scores
        array([[ 1. , -0.5, -0.5]])
    """
    masks, values = _checked(subsets, outputs)
    if values.ndim != 2 or len(values) != len(masks) or not values.shape[1]:
        raise InputError(
            f"outputs {list(values.shape)} do not fit subsets {list(masks.shape)}: each model's "
            "output on every test example is needed, [S, M]"
        )
    inside = masks.astype(np.float64)
    sums, squares = ([powers.T @ inside, powers.T @ (1 - inside)] for powers in (values, values**2))
    return _difference(masks, sums, squares)


def _checked(subsets: ArrayLike, outputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    masks = check_subsets(subsets)
    if len(masks) < 2:
        raise InputError("one subset: with and without an example takes at least two, better 100")
    values = np.asarray(outputs)
    if values.dtype.kind not in "bfiu":
        raise InputError(f"outputs are {values.dtype}, not numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        bad = np.asarray(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        raise InputError(
            f"outputs of model {int(np.argmax(bad))} hold NaN or infinities ({int(bad.sum())} of "
            f"{bad.size} models): its training diverged; leave such models out, with their subsets"
        )
    return masks, values


def _difference(
    masks: np.ndarray, sums: list[np.ndarray], squares: list[np.ndarray]
) -> InOutDifference:
    counts = [masks.sum(axis=0), (~masks).sum(axis=0)]
    means, errors = [], []
    for count, total, square in zip(counts, sums, squares, strict=True):
        mean = total / np.where(count > 0, count, np.nan)
        # rounding may leave a variance of nothing slightly below 0
        spread = np.maximum(square - count * mean**2, 0)
        spread[..., :] = np.where(spread < 1e-12 * np.maximum(square, 1e-300), 0, spread)
        means.append(mean)
        errors.append(spread / np.where(count > 1, (count - 1.0) * count, np.nan))
    return InOutDifference(
        means[0] - means[1], np.sqrt(errors[0] + errors[1]), means[0], means[1], *counts
    )
