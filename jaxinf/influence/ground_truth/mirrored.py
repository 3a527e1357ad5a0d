"""Mirrored leave-one-out: train once more with the query added, and score all examples by it."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jaxinf.errors import InputError
from jaxinf.influence.checks import check_alike, check_queries
from jaxinf.influence.ground_truth.convex import ConvexFit, check_reached, fit_problem
from jaxinf.influence.ground_truth.many_models import check_at_once, map_models
from jaxinf.influence.ground_truth.newton import (
    Gradient,
    check_search,
    conjugate_gradients,
    default_tolerance,
    minimise,
)
from jaxinf.influence.ground_truth.objective import make_problem, objective
from jaxinf.influence.queries import QueryGroups, as_groups, group_loss
from jaxinf.typing import Batch, Params, PerExampleLoss

# conjugate directions looked at, and the share of the squared residual that is round-off
_DIRECTIONS = 50
_SOLVED = 1e-8


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("influences", "gradient_norms", "num_steps", "fit"),
    meta_fields=(),
)
@dataclass(frozen=True)
class MirroredLeaveOneOut:
    """What adding each query does to all training examples.

    Attributes:
        influences: float[K, N], the training example's loss before the query was added minus
            after: positive = training on the query lowers the example's loss and, by the mirror,
            training on the example lowers the query's (a proponent).
        gradient_norms: float[K], reached by each retraining.
        num_steps: int[K], Newton steps of each.
        fit: the model without any query.
    """

    influences: Float[np.ndarray, "K N"]
    gradient_norms: Float[np.ndarray, " K"]
    num_steps: Int[np.ndarray, " K"]
    fit: ConvexFit


def mirrored_leave_one_out(
    loss_fn: PerExampleLoss,
    params: Params,
    queries: Batch | QueryGroups,
    train: Batch,
    *,
    l2: float,
    query_mass: float = 1.0,
    tolerance: float | None = None,
    max_steps: int = 100,
    models_at_once: int = 4,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> MirroredLeaveOneOut:
    """One retraining per query scores all N training examples of a convex model.

    The objective is (1/N) Σ ℓ(zᵢ; θ) + (query_mass/N) ℓ(query; θ) + (l2/2) ‖θ‖², N staying what
    it was, so that a query weighs what an example that `leave_one_out` leaves out weighed. To
    first order both give (1/N) ∇ℓ(query)ᵀ H⁻¹ ∇ℓ(z).

    Args:
        loss_fn: `(params, batch) -> float[B]`, convex in the parameters.
        params: where the first training starts, its minimum at best.
        queries: K examples, or groups of them from `group_queries` (mean loss of the group).
        train: pytree of arrays with leading axis N, held on the device as one batch.
        l2: penalty on all parameters, biases too.
        query_mass: how many training examples a query counts for, other than 0; a group of m that
            is to be added as m examples has mass m. A negative mass takes the query's loss away:
            the objective must stay strictly convex, which takes a strong `l2` or many training
            examples, or else a small mass. Half the influences at m minus half those at −m have no
            second-order error; divide by m to compare masses.
        tolerance: Euclidean norm of the gradient that every training reaches; by default 1e-10
            for float64 parameters and 1e-6 for float32.
        max_steps: most Newton steps of one training.
        models_at_once: models trained together on each device.
        mesh: splits the models over its `data` axis; default: one device.
        progress: show a bar.

    Returns:
        `MirroredLeaveOneOut`.

    Raises:
        InputError: for input that cannot be used, or a negative mass under which the objective is
            not convex where the training ends.

    Warns:
        ConvergenceWarning: a training did not reach the tolerance.

    Reference:
        Ko et al., "The Mirrored Influence Hypothesis", CVPR 2024 (arXiv 2402.08922).

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> x = np.array([[1.0], [1.0]], np.float32)
        >>> train = {"x": x, "y": np.array([1.0, 3.0], np.float32)}
        >>> query = {"x": x[:1], "y": np.zeros(1, np.float32)}
        >>> mirrored_leave_one_out(loss, jnp.zeros(1), query, train, l2=0.0).influences.round(3)
        array([[ 0.889, -1.778]], dtype=float32)
    """
    check_search(tolerance, max_steps)
    check_at_once(models_at_once)
    check_queries(queries)
    if not 0 < abs(query_mass) < float("inf"):
        raise InputError(f"query_mass is {query_mass}: a finite number of training examples, not 0")
    problem = make_problem(loss_fn, params, train, l2)
    groups = as_groups(queries)
    check_alike(groups, problem.train)
    dtype = ravel_pytree(problem.params)[0].dtype
    goal = tolerance or default_tolerance(dtype)

    fit = fit_problem(problem, tolerance, max_steps)
    problem = problem._replace(params=fit.params)
    search = (jnp.asarray(goal, dtype), jnp.int32(max_steps))
    losses, norms, steps, curvatures = map_models(
        _with_query,
        (problem, jnp.asarray(query_mass, dtype), search),
        jax.tree.map(np.asarray, groups),
        at_once=models_at_once,
        mesh=mesh,
        description="adding queries",
        progress=progress,
    )
    if query_mass < 0 and (curvatures <= 0).any():
        raise InputError(
            f"query_mass is {query_mass}: without so much of query {np.nanargmin(curvatures)} the "
            "objective is not convex: take a mass nearer to 0 or raise l2"
        )
    check_reached(norms, goal, "training with the query", steps)
    before = np.asarray(_train_losses(problem, problem.params))
    return MirroredLeaveOneOut(before - losses, norms, steps, fit)


def _with_query(state: Any, query: QueryGroups) -> tuple[jax.Array, ...]:
    problem, mass, (tolerance, max_steps) = state
    start, unravel = ravel_pytree(problem.params)
    gradient = jax.grad(lambda flat: objective(problem, unravel(flat), added=(query, mass)))
    found = minimise(
        gradient,
        conjugate_gradients(gradient),
        start,
        tolerance=tolerance,
        max_steps=max_steps,
    )
    losses = _train_losses(problem, unravel(found.point))
    of_query = jax.grad(lambda flat: group_loss(problem.loss_fn, unravel(flat), query))
    curvature = lax.cond(
        mass < 0,
        lambda point: _least_curvature(gradient, point, of_query(point)),
        lambda point: jnp.full((), jnp.inf, point.dtype),
        found.point,
    )
    return losses, found.gradient_norm, found.num_steps, curvature


def _least_curvature(gradient: Gradient, point: jax.Array, start: jax.Array) -> jax.Array:
    """The least curvature along the conjugate directions from `start`, to the first below 0.

    All of them are positive just where the Hessian is positive definite on the space that its
    powers span from `start`; from the query's gradient, that is where the query's loss bends.
    """
    _, hessian = jax.linearize(gradient, point)
    dot = functools.partial(jnp.vdot, precision="highest")
    first = dot(start, start)

    def unfinished(state: Any) -> jax.Array:
        residual, _, least, step = state
        return (least > 0) & (step < _DIRECTIONS) & (dot(residual, residual) > _SOLVED * first)

    def advance(state: Any) -> Any:
        residual, way, least, step = state
        bent = hessian(way)
        curvature = dot(way, bent)
        squared = dot(residual, residual)
        left = residual - squared / curvature * bent
        onward = left + dot(left, left) / squared * way
        return left, onward, jnp.minimum(least, curvature / dot(way, way)), step + 1

    infinite = jnp.full((), jnp.inf, point.dtype)
    return lax.while_loop(unfinished, advance, (start, start, infinite, jnp.int32(0)))[2]


@jax.jit
def _train_losses(problem: Any, params: Params) -> jax.Array:
    return problem.loss_fn(params, problem.train)
