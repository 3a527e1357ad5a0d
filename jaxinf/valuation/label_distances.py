"""How far a training class lies from a validation class: transport between their examples.

Only the pairs across the two sides are solved, each a small problem of its own, padded to one
shape and solved many at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from ott.geometry.geometry import Geometry

from jaxinf.typing import AnyArray
from jaxinf.valuation.dual import differentiable_potentials, dual_value
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.transport import Problem, solve_transport


def entries_at_once() -> int:
    """What the pairs that are solved together may hold: about a CPU's cache, 4 GiB elsewhere.

    Together they iterate until the last of them is solved, through all of their costs each time.
    """
    return 1 << (22 if jax.default_backend() == "cpu" else 30)


def entries_held() -> int:
    """What the cost of a pair may take to be held: 256 MiB of float32 on a CPU, 4 GiB elsewhere."""
    return 1 << (26 if jax.default_backend() == "cpu" else 30)


def label_distances(
    x: Float[jax.Array, "n d"],
    x_rows: Int[AnyArray, "cx s"],
    x_weights: Float[AnyArray, "cx s"],
    y: Float[jax.Array, "m d"],
    y_rows: Int[AnyArray, "cy t"],
    y_weights: Float[AnyArray, "cy t"],
    *,
    epsilon: float | jax.Array = 0.05,
    p: float = 2,
    differentiable: bool = False,
    threshold: float = 1e-3,
    max_iterations: int = 500,
) -> Float[jax.Array, "cx cy"]:
    """Transport costs between every class of one side and every class of the other.

    Args:
        x: training features.
        x_rows: rows of each training class, padded (`class_blocks`).
        x_weights: their masses, 0 for padding, a sum of one per class.
        y: validation features.
        y_rows: rows of each validation class.
        y_weights: their masses.
        epsilon: strength of the entropic term, as a share of the pair's mean cost.
        p: the cost of a pair of examples is ‖x − y‖^p / p.
        differentiable: let derivatives pass, by the implicit function theorem.
        threshold: marginal error at which a pair is solved.
        max_iterations: where to give up on a pair.

    Returns:
        The regularised costs (½W₂² for p = 2, and an entropic term of the order of ε), not
        debiased: of a class to itself it is not 0.
    """
    pairs = (x, x_rows, x_weights, y, y_rows, y_weights)
    options: dict[str, Any] = {"epsilon": epsilon, "p": p, "differentiable": differentiable}
    options |= {"threshold": threshold, "max_iterations": max_iterations}
    return costs_and_errors(*pairs, **options)[..., 0]


def costs_and_errors(
    x: Float[jax.Array, "n d"],
    x_rows: Int[AnyArray, "cx s"],
    x_weights: Float[AnyArray, "cx s"],
    y: Float[jax.Array, "m d"],
    y_rows: Int[AnyArray, "cy t"],
    y_weights: Float[AnyArray, "cy t"],
    *,
    epsilon: float | jax.Array = 0.05,
    p: float = 2,
    differentiable: bool = False,
    threshold: float = 1e-3,
    max_iterations: int = 500,
) -> Float[jax.Array, "cx cy 2"]:
    """`label_distances`, and the marginal error of each."""
    options: dict[str, Any] = {"threshold": threshold, "max_iterations": max_iterations}
    no_labels = jnp.zeros((1, 1), x.dtype)
    x_rows, x_weights, y_rows, y_weights = map(jnp.asarray, (x_rows, x_weights, y_rows, y_weights))

    def one_pair(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        of_x, of_y = pair
        left, right = x[x_rows[of_x]], y[y_rows[of_y]]
        a, b = x_weights[of_x].astype(x.dtype), y_weights[of_y].astype(x.dtype)
        none = jnp.zeros(left.shape[0], jnp.int32), jnp.zeros(right.shape[0], jnp.int32)
        geometry = ClassWiseGeometry(left, right, *none, no_labels, p=p)
        mean = jax.lax.stop_gradient(geometry.mean_under(a, b))
        # two classes that are one point have no cost to take a share of
        problem = Problem(a, b, jnp.maximum(epsilon * mean, jnp.finfo(x.dtype).tiny))
        if differentiable:
            f, g, columns = differentiable_potentials(geometry, problem, **options)
            error = jax.lax.stop_gradient(problem.error(g, columns))
            return jnp.stack([dual_value(problem, f, g, columns), error])
        small = left.shape[0] * right.shape[0] <= entries_held()
        held = Geometry(geometry.cost_matrix) if small else geometry
        found = solve_transport(held, a, b, epsilon=problem.epsilon, **options)
        # rows are exact, and so nearly are the columns: the mass of the plan is one
        return jnp.stack([a @ found.f + b @ found.g, found.marginal_error])

    # a pair's features, its cost, the exponential of that, and room to make both
    rows, columns = x_rows.shape[1], y_rows.shape[1]
    sizes = 4 * rows * columns + (rows + columns) * x.shape[1]
    pairs = jnp.meshgrid(jnp.arange(len(x_rows)), jnp.arange(len(y_rows)), indexing="ij")
    flat = jax.tree.map(jnp.ravel, tuple(pairs))
    at_once = max(1, min(len(flat[0]), entries_at_once() // sizes))
    costs = jax.lax.map(one_pair, flat, batch_size=at_once)
    return costs.reshape(len(x_rows), len(y_rows), 2)


# what is far from solved: ten times the error that is asked for
FAR = 1e-2


def unsolved(errors: Float[np.ndarray, "cx cy"]) -> str:
    """A line about pairs that were given up far from their solution; empty where there are none.

    Args:
        errors: marginal errors.

    Example:
        >>> unsolved(np.array([[0.0, 0.5]]))[:41]
        '1 of 2 label distances stopped early: mar'
        >>> unsolved(np.array([[0.001, 0.0]]))
        ''
    """
    far = ~(errors <= FAR)
    if not far.any():
        return ""
    return (
        f"{int(far.sum())} of {far.size} label distances stopped early: marginal error up to "
        f"{errors.max():.2g}; raise label_epsilon"
    )
