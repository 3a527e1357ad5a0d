"""Weighted multinomial logistic regression, small enough to train thousands at once.

One objective serves every subset of a training set: zero weights leave examples out, counts
repeat them, and the penalty makes the minimum unique even for no examples or a single class.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

_EXACT = jax.lax.Precision.HIGHEST


class LogisticFit(NamedTuple):
    """A trained classifier, and how far its training went.

    Attributes:
        coefficients: float[d, C]; logits are `features @ coefficients`.
        gradient_norm: largest absolute entry of the objective's gradient at `coefficients`,
            divided by the total weight (or by 1 where that is less than 1).
        num_steps: int, steps taken.
    """

    coefficients: Float[jax.Array, "d C"]
    gradient_norm: Float[jax.Array, ""]
    num_steps: Int[jax.Array, ""]


class Neighbourhood(NamedTuple):
    """What models share whose weights are those of one model but for a single example.

    Attributes:
        weights: float[N] of that model.
        coefficients: float[d, C], it.
        inverse: float[d, d], inverse of the bound on its Hessian.
    """

    weights: Float[jax.Array, " N"]
    coefficients: Float[jax.Array, "d C"]
    inverse: Float[jax.Array, "d d"]


class _Search(NamedTuple):
    point: jax.Array
    previous: jax.Array
    gradient: jax.Array
    momentum: jax.Array
    step: jax.Array


@functools.partial(jax.jit, static_argnames="max_steps")
def fit_logistic(
    features: Float[jax.Array, "N d"],
    targets: Float[jax.Array, "N C"],
    weights: Float[jax.Array, " N"],
    *,
    l2: float | jax.Array = 1.0,
    tolerance: float | jax.Array = 1e-3,
    max_steps: int = 1000,
    near: Neighbourhood | None = None,
) -> LogisticFit:
    """Minimise Σᵢ weightsᵢ · cross_entropyᵢ + (l2 / 2)‖coefficients‖².

    Accelerated steps with adaptive restart, preconditioned by a fixed bound on the Hessian:
    ½ Σᵢ weightsᵢ xᵢxᵢᵀ + l2 · I for every class. The bound holds everywhere, so no step
    size is searched for and all models of a `vmap` take the same steps. There is no intercept:
    append a column of ones (it is then penalised like the rest).

    Args:
        features: float[N, d].
        targets: float[N, C], one-hot or soft.
        weights: float[N], not negative; all zero gives zero coefficients.
        l2: penalty, positive; 1 / `C` of scikit-learn for three classes or more, 2 / `C` for two.
        tolerance: stop when `gradient_norm` is at most this.
        max_steps: stop at the latest after so many steps; `gradient_norm` then tells.
        near: of `neighbourhood`, where no more than one example's weight is larger than there:
            training starts from its model and inverts nothing. The minimum is the same.

    Returns:
        `LogisticFit`.

    References:
        Böhning, "Multinomial Logistic Regression Algorithm", Annals of the Institute of
        Statistical Mathematics, 1992 (the bound).
        O'Donoghue and Candès, "Adaptive Restart for Accelerated Gradient Schemes", Foundations
        of Computational Mathematics, 2015 (the gradient scheme).

    Example:
        >>> x = jnp.array([[-1.0], [1.0]])
        >>> fit = fit_logistic(x, jnp.eye(2), jnp.ones(2))
        >>> jnp.argmax(x @ fit.coefficients, axis=1).tolist(), bool(fit.gradient_norm <= 1e-3)
        ([0, 1], True)
    """
    weights = weights.astype(features.dtype)
    scale = jnp.maximum(jnp.sum(weights), 1)
    width = features.shape[1]

    start = jnp.zeros((width, targets.shape[1]), features.dtype)
    if near is None:
        precondition = functools.partial(_times, _inverse_bound(features, weights, l2))
    else:
        start = near.coefficients
        precondition = _with_one_more(features, weights, near)

    def gradient_at(point):
        logits = jnp.matmul(features, point, precision=_EXACT)
        return from_residuals(jax.nn.softmax(logits, axis=-1) - targets, point)

    def from_residuals(residuals, point):
        # weights on the narrow side: under a vmap over them the features stay one matrix
        data = jnp.matmul(features.T, weights[:, None] * residuals, precision=_EXACT)
        return (data + l2 * point).astype(point.dtype)

    def norm(gradient):
        return jnp.max(jnp.abs(gradient)) / scale

    def unfinished(search):
        reached = norm(search.gradient)
        # a norm that is NaN or negative is a fault, not convergence: go on, and let it show
        converged = (reached >= 0) & (reached <= tolerance)
        return ~converged & (search.step < max_steps)

    def advance(search):
        arrived = search.point - precondition(search.gradient)
        travelled = arrived - search.previous
        # the way travelled points uphill: forget the momentum
        restart = jnp.sum(search.gradient * travelled) > 0
        last = jnp.where(restart, 1.0, search.momentum)
        momentum = (1 + jnp.sqrt(1 + 4 * last * last)) / 2
        point = arrived + ((last - 1) / momentum).astype(arrived.dtype) * travelled
        return _Search(point, arrived, gradient_at(point), momentum, search.step + 1)

    one = jnp.ones((), features.dtype)
    if near is None:
        # no product with zeros, for which XLA on a CPU gives NaN at some sizes (2000 x 785)
        first = from_residuals(1 / targets.shape[1] - targets, start)
    else:
        first = gradient_at(start)
    search = _Search(start, start, first, one, jnp.zeros((), jnp.int32))
    found = jax.lax.while_loop(unfinished, advance, search)
    return LogisticFit(found.point, norm(found.gradient), found.step)


def neighbourhood(
    features: Float[jax.Array, "N d"],
    targets: Float[jax.Array, "N C"],
    weights: Float[jax.Array, " N"],
    *,
    l2: float | jax.Array = 1.0,
    tolerance: float | jax.Array = 1e-3,
    max_steps: int = 1000,
) -> Neighbourhood:
    """Train one model, for `fit_logistic` to start from where an example comes or goes.

    Args:
        features: float[N, d].
        targets: float[N, C].
        weights: float[N].
        l2: as of `fit_logistic`.
        tolerance: likewise.
        max_steps: likewise.

    Returns:
        `Neighbourhood`.

    Example:
        >>> x, y = jnp.array([[-1.0], [1.0], [2.0]]), jnp.array([[1.0, 0], [0, 1], [0, 1]])
        >>> near = neighbourhood(x, y, jnp.array([1.0, 1.0, 0.0]), tolerance=1e-6)
        >>> again, anew = (
        ...     fit_logistic(x, y, jnp.ones(3), tolerance=1e-6, near=n) for n in (near, None)
        ... )
        >>> jnp.allclose(again.coefficients, anew.coefficients, atol=1e-4).item()
        True
    """
    weights = weights.astype(features.dtype)
    inverse = _inverse_bound(features, weights, l2)
    start = jnp.zeros((features.shape[1], targets.shape[1]), features.dtype)
    fit = fit_logistic(
        features, targets, weights, l2=l2, tolerance=tolerance, max_steps=max_steps,
        near=Neighbourhood(weights, start, inverse),
    )  # fmt: skip
    return Neighbourhood(weights, fit.coefficients, inverse)


def _inverse_bound(features: jax.Array, weights: jax.Array, l2: float | jax.Array) -> jax.Array:
    """Inverse of a matrix that no Hessian of the objective exceeds, whatever the coefficients."""
    width = features.shape[1]
    weighted = weights[:, None] * features
    bound = jnp.matmul(weighted.T, features, precision=_EXACT) / 2 + l2 * jnp.eye(width)
    factor = jax.scipy.linalg.cho_factor(bound.astype(features.dtype))
    # an explicit inverse turns each step's solve into a matrix product, batched under vmap
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(width, dtype=features.dtype))


def _times(inverse: jax.Array, gradient: jax.Array) -> jax.Array:
    return jnp.matmul(inverse, gradient, precision=_EXACT)


def _with_one_more(
    features: jax.Array, weights: jax.Array, near: Neighbourhood
) -> Callable[[jax.Array], jax.Array]:
    """Multiply by the inverse of the bound with the one example whose weight grew.

    By Sherman and Morrison's formula, so that all neighbours share one inverse. An example whose
    weight shrank may stay in the bound.
    """
    grown = jnp.sqrt(jnp.maximum(weights - near.weights, 0))
    example = jnp.matmul(grown, features, precision=_EXACT)
    moved = _times(near.inverse, example)
    moved_by = moved / jnp.sqrt(2 + jnp.sum(example * moved))

    def precondition(gradient: jax.Array) -> jax.Array:
        along = jnp.matmul(moved_by, gradient, precision=_EXACT)
        return _times(near.inverse, gradient) - moved_by[:, None] * along[None, :]

    return precondition


def correctness(
    logits: Float[jax.Array, "M C"], targets: Float[jax.Array, "M C"]
) -> Float[jax.Array, " M"]:
    """Share of each example's label among the classes with the largest logit.

    1 for a right and 0 for a wrong prediction; a model that ties all C classes gets 1/C, which
    is what a guess would.

    Example:
        >>> correctness(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.eye(2)).tolist()
        [1.0, 0.5]
    """
    best = logits >= jnp.max(logits, axis=-1, keepdims=True)
    return jnp.sum(targets, axis=-1, where=best) / jnp.sum(best, axis=-1)


def standardised_designs(
    train: Float[jax.Array, "N d"], valid: Float[jax.Array, "M d"]
) -> tuple[Float[jax.Array, "N k"], Float[jax.Array, "M k"]]:
    """Both sets standardised by the training set, with a column of ones at the end.

    With more columns than training examples the columns are rotated into the N directions that
    the training examples span: a penalised linear model has no use for the rest, so its
    predictions stay the same.

    Example:
        >>> standardised_designs(jnp.array([[1.0], [3.0]]), jnp.array([[2.0]]))[0].tolist()
        [[-1.0, 1.0], [1.0, 1.0]]
    """
    dtype = jnp.promote_types(jnp.result_type(train, valid), jnp.float32)
    train, valid = train.astype(dtype), valid.astype(dtype)
    mean = jnp.mean(train, axis=0, keepdims=True)
    spread = jnp.std(train, axis=0, keepdims=True)
    # what varies by no more than rounding is constant
    floor = 10 * jnp.finfo(dtype).eps * jnp.max(jnp.abs(train), axis=0, keepdims=True)
    spread = jnp.where(spread > floor, spread, 1)
    train, valid = (train - mean) / spread, (valid - mean) / spread
    if train.shape[1] > train.shape[0]:
        directions = jnp.linalg.qr(train.T)[0]
        train = jnp.matmul(train, directions, precision=_EXACT)
        valid = jnp.matmul(valid, directions, precision=_EXACT)
    ones = jnp.ones((train.shape[0] + valid.shape[0], 1), dtype)
    return (
        jnp.hstack([train, ones[: train.shape[0]]]),
        jnp.hstack([valid, ones[train.shape[0] :]]),
    )
