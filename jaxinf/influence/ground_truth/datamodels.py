"""Datamodels: the output of a retrained model as a linear function of the examples it saw."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra
from jaxinf.influence.ground_truth.subsets import check_subsets

# penalties tried, in units of the largest squared singular value of the masks
_RELATIVE_PENALTIES = np.logspace(-4, 2, 25)


@dataclass(frozen=True)
class Datamodels:
    """One linear model per query.

    Attributes:
        influences: float64[K, N], what training on the example adds to the query's output:
            positive = a proponent, where a higher output is better.
        intercepts: float64[K], the output that no example at all would give.
        penalties: float64[K], the regularisation chosen.
        errors: float64[K], mean squared error of predicting the output of a model that was not
            fitted to, as a share of the outputs' variance: 1 = nothing is predicted.
    """

    influences: Float[np.ndarray, "K N"]
    intercepts: Float[np.ndarray, " K"]
    penalties: Float[np.ndarray, " K"]
    errors: Float[np.ndarray, " K"]


def fit_datamodels(
    subsets: ArrayLike,
    outputs: ArrayLike,
    *,
    kind: Literal["ridge", "lasso"] = "ridge",
    penalty: float | None = None,
) -> Datamodels:
    """Regress the outputs of retrained models on which examples they saw, in float64.

    Args:
        subsets: bool[S, N], the examples that each of S models was trained on.
        outputs: float[S, K], each model's output on each query, higher = better, such as a
            margin or minus the loss.
        kind: `"ridge"` in closed form, for fewer models than examples too, or `"lasso"`, as in
            the paper, by scikit-learn.
        penalty: λ of ½‖outputs − prediction‖² + (λ/2)‖·‖² for ridge, and of the mean squared error
            over two plus λ‖·‖₁ for lasso. By default the one that predicts left-out models best:
            each by itself, exactly, for ridge, and a fifth at a time for lasso.

    Returns:
        `Datamodels`.

    Raises:
        InputError: for masks and outputs that do not fit together, fewer than 3 models, outputs
            that are not finite, or a penalty that is not positive.
        MissingExtraError: lasso without scikit-learn.

    Reference:
        Ilyas et al., "Datamodels: Predicting Predictions from Training Data", ICML 2022.

    Example:
        >>> subsets = np.stack([np.roll([True, True, False, False, False], i) for i in range(5)])
        >>> subsets = np.concatenate([subsets, ~subsets])
        >>> outputs = subsets @ np.array([[2.0], [-1.0], [0.0], [0.0], [0.0]]) + 5
        >>> found = fit_datamodels(subsets, outputs)
        >>> found.influences.round(2) + 0.0
        array([[ 2., -1.,  0.,  0.,  0.]])
    """
    masks = check_subsets(subsets).astype(np.float64)
    results = np.asarray(outputs, np.float64)
    if results.ndim != 2 or len(results) != len(masks) or not results.shape[1]:
        raise InputError(
            f"subsets {list(masks.shape)} and outputs {list(results.shape)} do not fit: [S, N] and "
            "[S, K] are needed"
        )
    if len(masks) < 3:
        raise InputError(f"{len(masks)} models: a regression needs at least 3, better hundreds")
    if not np.isfinite(results).all():
        raise InputError("outputs hold NaN or infinities: leave those models or queries out")
    if penalty is not None and not 0 < penalty < np.inf:
        raise InputError(f"penalty is {penalty}: a positive number")
    if kind not in ("ridge", "lasso"):
        raise InputError(f"kind is {kind!r}: 'ridge' or 'lasso'")
    mean, level = masks.mean(axis=0), results.mean(axis=0)
    fit = _ridge if kind == "ridge" else _lasso
    slopes, penalties, errors = fit(masks - mean, results - level, penalty)
    variances = results.var(axis=0)
    shares = np.divide(errors, variances, out=np.zeros_like(errors), where=variances > 0)
    return Datamodels(slopes, level - slopes @ mean, penalties, shares)


def _ridge(
    masks: np.ndarray, outputs: np.ndarray, penalty: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left, singular, right = np.linalg.svd(masks, full_matrices=False)
    squares = singular**2
    tried = _RELATIVE_PENALTIES * squares[0] if penalty is None else np.array([penalty])
    projected = left.T @ outputs
    errors = np.empty((len(tried), outputs.shape[1]))
    for i, value in enumerate(tried):
        shrink = squares / (squares + value)
        # the mean is fitted too, which adds 1/S to each model's leverage
        leverage = np.square(left) @ shrink + 1 / len(masks)
        residuals = outputs - left @ (shrink[:, None] * projected)
        errors[i] = np.mean((residuals / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2, axis=0)
    best = errors.argmin(axis=0)
    scale = singular[:, None] / (squares[:, None] + tried[best][None, :])
    return (right.T @ (scale * projected)).T, tried[best], errors.min(axis=0)


def _lasso(
    masks: np.ndarray, outputs: np.ndarray, penalty: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    linear = require_extra("sklearn.linear_model", "cli")
    selection = require_extra("sklearn.model_selection", "cli")
    folds = selection.KFold(min(5, len(masks)))
    slopes, penalties, errors = [], [], []
    for column in outputs.T:
        alpha = penalty
        if alpha is None:
            alpha = float(linear.LassoCV(cv=folds, max_iter=20_000).fit(masks, column).alpha_)
        model = linear.Lasso(alpha, max_iter=20_000)
        predicted = selection.cross_val_predict(model, masks, column, cv=folds)
        slopes.append(model.fit(masks, column).coef_)
        penalties.append(alpha)
        errors.append(np.mean((column - predicted) ** 2))
    return np.stack(slopes), np.array(penalties), np.array(errors)
