"""Figures that let a user trust or distrust potentials: solved? and truly the slope?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.valuation.routes import Solve, Solved


class Certificate(NamedTuple):
    """How far a result can be trusted.

    Attributes:
        marginal_error: float, Σ_j |column sum of the plan − its target|, of a total mass of 1.
        dual_gap: float, |cost of the plan − dual value| / |dual value|. The plan misses its masses
            by the marginal error, so that this is a check and no bound.
        finite_difference_error: float, the largest |change of the distance when mass is really
            moved onto an example − its calibrated gradient| among `checked`, over the range of
            the calibrated gradients; NaN where nothing was checked. The distance is the solver's
            own each time: of a soft solver, what its soft potentials add up to.
        checked: int[k], the examples on which mass was moved.
    """

    marginal_error: float | jax.Array
    dual_gap: float | jax.Array
    finite_difference_error: float | jax.Array
    checked: np.ndarray


def sample_points(gradients: Float[jax.Array, " N"], count: int) -> np.ndarray:
    """Examples spread over the order of their gradients: the first, the last, and between.

    Example:
        >>> sample_points(jnp.array([5.0, 1.0, 3.0]), 2).tolist()
        [1, 0]
    """
    order = np.argsort(np.asarray(gradients))
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[places]


def certify(
    solve: Solve,
    solved: Solved,
    weights: Float[jax.Array, " N"],
    f: Float[jax.Array, " N"],
    gradients: Float[jax.Array, " N"],
    *,
    num_checks: int,
    both_ways: bool = True,
) -> Certificate:
    """Compare gradients with what happens to the distance when mass is really moved.

    Args:
        solve: solves the same problem for other masses.
        solved: figures of the potentials under test.
        weights: float[N] masses.
        f: float[N], the potentials under test.
        gradients: float[N], their calibrated gradients.
        num_checks: how many examples to move mass onto; each solves the problem again, from
            where the solution lies.
        both_ways: move mass onto an example and off it, two solves, so that curvature cancels;
            else only onto it, which is enough where the potentials are no derivatives anyway.
    """
    value = jnp.maximum(jnp.abs(solved.value), jnp.finfo(weights.dtype).tiny)
    gap = solved.gap / value
    checked = sample_points(gradients, num_checks) if num_checks else np.zeros(0, int)
    errors = []
    for point in checked:
        # a quarter of the example's mass: round-off below it, curvature above
        step = weights[point] / 4
        others = weights / (1 - weights[point])
        move = (-others * step).at[point].set(step)
        up = solve(weights + move, solved.transport.g).value
        down = solve(weights - move, solved.transport.g).value if both_ways else solved.value
        length = 2 * step if both_ways else step
        errors.append(jnp.abs((up - down) / length - gradients[point]))
    spread = jnp.maximum(jnp.max(gradients) - jnp.min(gradients), jnp.finfo(f.dtype).tiny)
    worst = jnp.max(jnp.stack(errors)) / spread if errors else jnp.asarray(jnp.nan)
    return Certificate(solved.transport.marginal_error, gap, worst, checked)
