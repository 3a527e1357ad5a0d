"""Leave-one-out influence by training again without each example, to a stated gradient norm."""

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError
from jaxinf.influence.checks import check_queries
from jaxinf.influence.ground_truth.convex import ConvexFit, check_reached, fit_problem
from jaxinf.influence.ground_truth.many_models import check_at_once, map_models
from jaxinf.influence.ground_truth.newton import (
    check_search,
    conjugate_gradients,
    default_tolerance,
    inverse_hessian,
    minimise,
)
from jaxinf.influence.ground_truth.objective import Problem, make_problem, objective
from jaxinf.influence.ground_truth.subsets import class_labels
from jaxinf.influence.queries import QueryGroups, as_groups, group_loss
from jaxinf.typing import Batch, Params, PerExampleLoss

Solver: TypeAlias = Literal["auto", "chord", "newton-cg"]

# a dense inverse of this many parameters takes 256 MiB in float32
_DENSE_PARAMETERS = 8192
# Hessian-vector products that a refit by conjugate gradients needs, roughly
_PRODUCTS_PER_REFIT = 50


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("influences", "rows", "gradient_norms", "num_steps", "fit"),
    meta_fields=(),
)
@dataclass(frozen=True)
class LeaveOneOut:
    """What leaving out each example does.

    Attributes:
        influences: float[K, R], the query's loss without the example minus with it: positive =
            training on the example lowers the query's loss (a proponent).
        rows: int[R], the training examples that were left out, one at a time.
        gradient_norms: float[R], reached by each retraining.
        num_steps: int[R], Newton steps of each.
        fit: the model of all examples.
    """

    influences: Float[np.ndarray, "K R"]
    rows: Int[np.ndarray, " R"]
    gradient_norms: Float[np.ndarray, " R"]
    num_steps: Int[np.ndarray, " R"]
    fit: ConvexFit


def leave_one_out(
    loss_fn: PerExampleLoss,
    params: Params,
    queries: Batch | QueryGroups,
    train: Batch,
    *,
    l2: float,
    rows: ArrayLike | None = None,
    allow_missing_classes: bool = False,
    solver: Solver = "auto",
    tolerance: float | None = None,
    max_steps: int = 200,
    models_at_once: int = 32,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> LeaveOneOut:
    """Exact leave-one-out influence of a convex model: it is trained again without each example.

    The objective is (1/N) Σ ℓ(zᵢ; θ) + (l2/2) ‖θ‖²; an example is left out by a weight of zero,
    N staying what it was. Every retraining starts from the model of all examples. Single
    examples change a model little, so float64 is the dtype for it.

    Args:
        loss_fn: `(params, batch) -> float[B]`, convex in the parameters.
        params: where the first training starts, its minimum at best.
        queries: K examples, or groups of them from `group_queries`.
        train: pytree of arrays with leading axis N, held on the device as one batch.
        l2: penalty on all parameters, biases too.
        rows: int[R], which examples to leave out; all N by default.
        allow_missing_classes: leave out the only example of its class, too. Classes are
            `train["y"]` where it is N whole numbers of at most N / 10 and 1000 values.
        solver: `"chord"` inverts the full model's Hessian once, as a matrix, and takes Newton
            steps with it; `"newton-cg"` never forms a matrix. `"auto"` takes the cheaper one.
        tolerance: Euclidean norm of the gradient that every training reaches; by default 1e-10
            for float64 parameters and 1e-6 for float32.
        max_steps: most Newton steps of one training.
        models_at_once: models trained together on each device.
        mesh: splits the models over its `data` axis; default: one device.
        progress: show a bar.

    Returns:
        `LeaveOneOut`.

    Raises:
        InputError: for input that cannot be used, rows out of range, a class that would be left
            without examples, or a Hessian that is not positive definite.

    Warns:
        ConvergenceWarning: a training did not reach the tolerance.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> x = np.array([[1.0], [1.0]], np.float32)
        >>> train = {"x": x, "y": np.array([1.0, 3.0], np.float32)}
        >>> query = {"x": x[:1], "y": np.zeros(1, np.float32)}
        >>> leave_one_out(loss, jnp.zeros(1), query, train, l2=0.0).influences.round(3)
        array([[ 5., -3.]], dtype=float32)
    """
    check_search(tolerance, max_steps)
    check_at_once(models_at_once)
    check_queries(queries)
    problem = make_problem(loss_fn, params, train, l2)
    chosen = _check_rows(rows, problem.size)
    if not allow_missing_classes:
        _check_classes(class_labels(train, problem.size), chosen)
    start = ravel_pytree(problem.params)[0]
    goal = tolerance or default_tolerance(start.dtype)
    chord = _use_chord(solver, start.size, len(chosen))

    fit = fit_problem(problem, tolerance, max_steps)
    problem = problem._replace(params=fit.params)
    inverse = _inverse(problem) if chord else None
    if inverse is not None and not bool(jnp.isfinite(inverse).all()):
        raise InputError(
            "the Hessian is not positive definite, so the model has no single minimum: raise l2"
        )
    groups = jax.tree.map(jnp.asarray, as_groups(queries))
    search = (jnp.asarray(goal, start.dtype), jnp.int32(max_steps))
    losses = _query_losses(problem, problem.params, groups)
    changes, norms, steps = map_models(
        _without_one,
        (problem, inverse, groups, losses, search),
        chosen,
        at_once=models_at_once,
        mesh=mesh,
        description="leaving out",
        progress=progress,
    )
    check_reached(norms, goal, "leave-one-out training", steps)
    return LeaveOneOut(changes.T, chosen, norms, steps, fit)


def _without_one(state: Any, row: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    problem, inverse, groups, before, (tolerance, max_steps) = state
    start, unravel = ravel_pytree(problem.params)
    weights = jnp.ones(problem.size, start.dtype).at[row].set(0)
    gradient = jax.grad(lambda flat: objective(problem, unravel(flat), weights))
    if inverse is None:
        direction = conjugate_gradients(gradient)
    else:
        direction = lambda point, slope: -jnp.matmul(inverse, slope, precision="highest")
    found = minimise(gradient, direction, start, tolerance=tolerance, max_steps=max_steps)
    change = _query_losses(problem, unravel(found.point), groups) - before
    return change, found.gradient_norm, found.num_steps


@jax.jit
def _inverse(problem: Problem) -> jax.Array:
    start, unravel = ravel_pytree(problem.params)
    gradient = jax.grad(lambda flat: objective(problem, unravel(flat)))
    return inverse_hessian(gradient, start)


@jax.jit
def _query_losses(problem: Problem, params: Params, groups: QueryGroups) -> jax.Array:
    return jax.vmap(lambda group: group_loss(problem.loss_fn, params, group))(groups)


def _use_chord(solver: str, num_params: int, num_refits: int) -> bool:
    if solver not in ("auto", "chord", "newton-cg"):
        raise InputError(f"solver is {solver!r}: 'auto', 'chord' or 'newton-cg'")
    if solver != "auto":
        return solver == "chord"
    pays = num_refits * _PRODUCTS_PER_REFIT >= num_params
    return pays and num_params <= _DENSE_PARAMETERS


def _check_rows(rows: ArrayLike | None, count: int) -> np.ndarray:
    chosen = np.arange(count) if rows is None else np.asarray(rows)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise InputError(f"rows are {chosen.dtype}{list(chosen.shape)}: row numbers [R] are needed")
    if chosen.min() < 0 or chosen.max() >= count:
        raise InputError(f"rows reach from {chosen.min()} to {chosen.max()}, but N is {count}")
    if count < 2:
        raise InputError("train holds one example: nothing is left without it")
    return chosen.astype(np.int32)


def _check_classes(labels: np.ndarray | None, rows: np.ndarray) -> None:
    """Refuse to leave out the only example of a class."""
    if labels is None:
        return
    _, positions, counts = np.unique(labels, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(counts[positions[rows]] == 1)
    if alone.size:
        row = rows[alone[0]]
        others = f" (and {alone.size - 1} more such rows)" if alone.size > 1 else ""
        raise InputError(
            f"row {row} is the only example of class {labels[row]}{others}: leave other rows out, "
            "or pass allow_missing_classes=True"
        )
