"""The class-wise Wasserstein distance between two labelled sets, differentiable."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.typing import AnyArray
from jaxinf.valuation.distances import in_float32
from jaxinf.valuation.dual import differentiable_potentials, dual_value
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.label_distances import costs_and_errors, unsolved
from jaxinf.valuation.pose import check_label_epsilon, check_resolution, strength_of
from jaxinf.valuation.sides import ValuationWarning, read_sides
from jaxinf.valuation.transport import Problem


@in_float32
def class_wise_distance(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    *,
    epsilon: float = 0.05,
    relative_epsilon: bool = True,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    p: float = 2,
    label_epsilon: float = 0.05,
    train_weights: AnyArray | None = None,
    valid_weights: AnyArray | None = None,
    tau: float = 1.0,
    train_tau: float = 1.0,
    threshold: float = 1e-4,
    max_iterations: int = 5000,
) -> Float[jax.Array, ""]:
    """What it costs to transport a labelled training set onto a labelled validation set.

    The ground cost of two examples is λx ‖x − x'‖^p / p + λy W[y, y'], where W is the transport
    cost between the examples of the two classes (LAVA, ICLR 2023, section 3.1).

    Args:
        train_features: float[N, ...]; trailing axes are flattened.
        train_labels: int[N], or float[N, C] shares of each class. Not traced: the classes are
            the structure of the problem.
        valid_features: float[M, ...].
        valid_labels: int[M], or float[M, C'].
        epsilon: strength of the entropic term.
        relative_epsilon: whether it is a share of the mean cost (held fixed by derivatives).
        feature_weight: λx.
        label_weight: λy; at 0 labels play no part.
        p: cost exponent, 1 or more.
        label_epsilon: the same as `epsilon` for the label distances, always relative.
        train_weights: float[N] positive masses, scaled to a sum of one (default: uniform).
        valid_weights: float[M].
        tau: 1 transports onto the whole validation set; below, validation mass may be left
            over at a price (semi-relaxed).
        train_tau: the same of the training mass; both below 1 is unbalanced transport.
        threshold: marginal error of the solve.
        max_iterations: where to give up.

    Returns:
        The regularised cost, float[]. It composes with jit, grad (up to third order, by
        the implicit function theorem) and vmap in the features and the weights, labels closed
        over.

    Raises:
        InputError: see `lava`.

    Warns:
        ValuationWarning: the transport or a label distance was given up far from its solution.
            Not looked at under a trace.

    Example:
        >>> import numpy as np
        >>> near, far = np.zeros((2, 1), np.float32), np.full((2, 1), 3.0, np.float32)
        >>> labels = np.array([0, 0])
        >>> float(class_wise_distance(near, labels, far, labels, label_weight=0.0))
        4.5
        >>> grad = jax.grad(class_wise_distance)(near, labels, far, labels, label_weight=0.0)
        >>> grad.ravel().tolist()
        [-1.5, -1.5]
    """
    train, valid = read_sides(
        train_features, train_labels, valid_features, valid_labels, train_weights, valid_weights
    )
    check_label_epsilon(label_epsilon, train.features.dtype)
    for name, share in (("tau", tau), ("train_tau", train_tau)):
        if not 0 < share <= 1:
            raise InputError(f"{name} must lie in (0, 1], not {share}")
    arrays = [(side.features, jnp.asarray(side.labels), side.weights) for side in (train, valid)]
    blocks = (*train.blocks, *valid.blocks) if label_weight != 0 else None
    value, strength, mean, error, label_error = _distance(
        *arrays,
        blocks,
        (feature_weight, label_weight, epsilon, label_epsilon, threshold, max_iterations),
        shape=(len(train.classes), len(valid.classes)),
        relative_epsilon=relative_epsilon,
        p=p,
        taus=(train_tau, tau),
    )
    check_resolution(strength, mean, train.features.dtype)
    _warn_if_unsolved(error, label_error, threshold)
    return value


def _warn_if_unsolved(error: jax.Array, label_error: jax.Array, threshold: float) -> None:
    if isinstance(error, Tracer) or isinstance(label_error, Tracer):
        return
    if not float(error) <= 10 * threshold:
        warnings.warn(
            f"the transport stopped early, at a marginal error of {float(error):.2g} (threshold "
            f"{threshold:.2g}): raise epsilon or max_iterations",
            ValuationWarning,
            stacklevel=4,
        )
    if said := unsolved(np.asarray(label_error)):
        warnings.warn(said, ValuationWarning, stacklevel=4)


@functools.partial(jax.jit, static_argnames=("shape", "relative_epsilon", "p", "taus"))
def _distance(
    train: tuple[jax.Array, jax.Array, jax.Array],
    valid: tuple[jax.Array, jax.Array, jax.Array],
    blocks: Any,
    numbers: tuple[float, ...],
    *,
    shape: tuple[int, int],
    relative_epsilon: bool,
    p: float,
    taus: tuple[float, float],
) -> tuple[jax.Array, ...]:
    (x, x_labels, a), (y, y_labels, b) = train, valid
    feature_weight, label_weight, epsilon, label_epsilon, threshold, max_iterations = numbers
    between, label_error = jnp.zeros(shape, x.dtype), jnp.zeros((1, 1), x.dtype)
    if blocks is not None:
        x_rows, x_weights, y_rows, y_weights = blocks
        found = costs_and_errors(
            x,
            x_rows,
            x_weights,
            y,
            y_rows,
            y_weights,
            epsilon=label_epsilon,
            p=p,
            differentiable=True,
        )
        between, label_error = found[..., 0], found[..., 1]
    geometry = ClassWiseGeometry(
        x,
        y,
        x_labels,
        y_labels,
        between,
        feature_weight=feature_weight,
        label_weight=label_weight,
        p=p,
    )
    strength, mean = strength_of(geometry, a, b, epsilon, relative=relative_epsilon)
    problem = Problem(a, b, strength, *taus)
    f, g, columns = differentiable_potentials(
        geometry, problem, threshold=threshold, max_iterations=max_iterations
    )
    error = jax.lax.stop_gradient(problem.error(g, columns))
    return dual_value(problem, f, g, columns), strength, mean, error, label_error
