"""Train a convex model to its minimum: what every retraining below starts from."""

import functools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxinf.errors import InputError
from jaxinf.influence.convergence import InfluenceWarning
from jaxinf.influence.ground_truth.newton import (
    Minimum,
    check_search,
    conjugate_gradients,
    default_tolerance,
    minimise,
)
from jaxinf.influence.ground_truth.objective import Problem, make_problem, objective
from jaxinf.typing import Batch, Params, PerExampleLoss


class ConvergenceWarning(InfluenceWarning):
    """A model was not trained to the stated gradient norm."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "gradient_norm", "num_steps"),
    meta_fields=(),
)
@dataclass(frozen=True)
class ConvexFit:
    """A trained model.

    Attributes:
        params: the minimum.
        gradient_norm: Euclidean norm of the objective's gradient there.
        num_steps: Newton steps taken.
    """

    params: Params
    gradient_norm: jax.Array
    num_steps: jax.Array


def fit_convex(
    loss_fn: PerExampleLoss,
    params: Params,
    train: Batch,
    *,
    l2: float,
    tolerance: float | None = None,
    max_steps: int = 100,
) -> ConvexFit:
    """Minimise (1/N) Σ ℓ(zᵢ; θ) + (l2/2) ‖θ‖² by Newton's method with conjugate gradients.

    Args:
        loss_fn: `(params, batch) -> float[B]`, convex in the parameters.
        params: where to start; every parameter, a bias too, is penalised.
        train: pytree of arrays with leading axis N, held on the device as one batch.
        l2: penalty; positive unless the losses alone have a single minimum.
        tolerance: Euclidean norm of the gradient to reach; by default 1e-10 for float64
            parameters and 1e-6 for float32.
        max_steps: most Newton steps.

    Returns:
        `ConvexFit`.

    Raises:
        InputError: for parameters, examples or options that cannot be used, or a gradient that
            is not finite.

    Warns:
        ConvergenceWarning: the tolerance was not reached; says the norm that was.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> train = {"x": np.eye(2, dtype=np.float32), "y": np.array([2.0, 4.0], np.float32)}
        >>> fit_convex(loss, jnp.zeros(2), train, l2=0.5).params.tolist()
        [1.0, 2.0]
    """
    check_search(tolerance, max_steps)
    problem = make_problem(loss_fn, params, train, l2)
    return fit_problem(problem, tolerance, max_steps)


def fit_problem(problem: Problem, tolerance: float | None, max_steps: int) -> ConvexFit:
    """As `fit_convex`, for a problem that has been checked."""
    start, unravel = ravel_pytree(problem.params)
    goal = tolerance or default_tolerance(start.dtype)
    found = _fit(problem, jnp.asarray(goal, start.dtype), jnp.int32(max_steps))
    check_reached(found.gradient_norm[None], goal, "the model", found.num_steps[None])
    return ConvexFit(unravel(found.point), found.gradient_norm, found.num_steps)


def check_reached(
    norms: jax.Array | np.ndarray, tolerance: float, what: str, steps: jax.Array | np.ndarray
) -> None:
    """Warn where the gradient norm asked for was not reached; refuse NaN.

    Raises:
        InputError: a norm is not finite.
    """
    norms, steps = np.asarray(norms), np.asarray(steps)
    if not np.isfinite(norms).all():
        raise InputError(
            f"the gradient of {what} is not finite: check that labels lie in 0 .. C - 1 and that "
            "the objective is convex, or raise l2"
        )
    late = norms > tolerance
    if late.any():
        count = f"{late.sum()} of {late.size} times " if late.size > 1 else ""
        warnings.warn(
            f"{what} stopped {count}at a gradient norm of {norms.max():.2g}, above the tolerance "
            f"{tolerance:.2g}, after up to {steps.max()} steps: raise max_steps, l2 or the "
            "tolerance, or use float64",
            ConvergenceWarning,
            stacklevel=4,
        )


@jax.jit
def _fit(problem: Problem, tolerance: jax.Array, max_steps: jax.Array) -> Minimum:
    start, unravel = ravel_pytree(problem.params)
    gradient = jax.grad(lambda flat: objective(problem, unravel(flat)))
    return minimise(
        gradient,
        conjugate_gradients(gradient),
        start,
        tolerance=tolerance,
        max_steps=max_steps,
    )
