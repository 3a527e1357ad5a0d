"""An annealed solve: ten or so averaged updates while ε falls to its target, and no more.

It is the solver of the released code, step for step: ε falls from the squared diameter of the
data by factors of four, both potentials are updated from the old ones and averaged, one step per
ε, with one full update at the end (geomloss 0.2.6, `sinkhorn_loop`, as LAVA calls it). What comes
out solves no transport problem, and says so; as values such soft potentials find bad examples
better than converged ones do.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.valuation.classes import ClassBlocks
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.log_sums import both_log_sums


class Annealed(NamedTuple):
    """Potentials that stand beside the masses, as elsewhere here: a b exp((f + g − c)/ε).

    Attributes:
        f: float[n].
        g: float[m].
        rows: float[n], row sums of their plan.
        columns: float[m], column sums.
        num_steps: int, averaged updates.
    """

    f: Float[jax.Array, " n"]
    g: Float[jax.Array, " m"]
    rows: Float[jax.Array, " n"]
    columns: Float[jax.Array, " m"]
    num_steps: jax.Array


def epsilon_schedule(
    diameter: Float[jax.Array, ""] | float, target: Float[jax.Array, ""] | float
) -> tuple[Any, Any]:
    """ε = diameter², once more, then a quarter each time while above the target, then the target.

    Args:
        diameter: an upper bound on the distance of two points.
        target: the last ε.

    Returns:
        How many steps there are, and a function from a step's number to its ε.

    Example:
        >>> count, epsilon = epsilon_schedule(4.0, 1.0)
        >>> [float(epsilon(i)) for i in range(int(count))]
        [16.0, 16.0, 4.0, 1.0]
    """
    first = jnp.maximum(jnp.asarray(diameter) ** 2, target)
    between = jnp.ceil(jnp.log(first / target) / np.log(4)).astype(jnp.int32)
    at = lambda i: jnp.where(i > between, target, first * 0.25 ** jnp.maximum(i - 1, 0))
    return between + 2, at


def bounding_diameter(*points: jax.Array) -> Float[jax.Array, ""]:
    """Diagonal of the box around some sets of points, float[n, d] each.

    Example:
        >>> float(bounding_diameter(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])))
        5.0
    """
    low = jnp.min(jnp.stack([jnp.min(p, axis=0) for p in points]), axis=0)
    high = jnp.max(jnp.stack([jnp.max(p, axis=0) for p in points]), axis=0)
    return jnp.linalg.norm(high - low)


def anneal(
    geometry: Geometry,
    a: Float[jax.Array, " n"],
    b: Float[jax.Array, " m"],
    *,
    diameter: Float[jax.Array, ""] | float,
    target: Float[jax.Array, ""] | float,
    axis_name: str | None = None,
) -> Annealed:
    """Run the schedule.

    Args:
        geometry: any ott geometry.
        a: float[n] masses, 0 for padding.
        b: float[m] masses, 0 for padding.
        diameter: where ε begins, squared.
        target: where it ends.
        axis_name: the mesh axis over which the rows are split, if they are.

    Returns:
        The potentials after one step per ε and one full update at the last, and what their plan
        sums to.
    """
    target = jnp.asarray(target, geometry.dtype)
    log_a, log_b = jnp.log(a), jnp.log(b)

    def soft_minima(f: jax.Array, g: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
        u, v = log_a + f / epsilon, log_b + g / epsilon
        over_columns, over_rows = both_log_sums(geometry, u, v, epsilon)
        if axis_name is not None:
            # a log-sum-exp over devices: two reductions of m numbers
            top = jax.lax.pmax(over_rows, axis_name)
            over_rows = top + jnp.log(jax.lax.psum(jnp.exp(over_rows - top), axis_name))
        return -epsilon * over_columns, -epsilon * over_rows

    count, epsilon_at = epsilon_schedule(diameter, target)
    first = soft_minima(jnp.zeros_like(a), jnp.zeros_like(b), epsilon_at(0).astype(a.dtype))

    def step(i: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        f, g = pair
        new_f, new_g = soft_minima(f, g, epsilon_at(i).astype(a.dtype))
        return (f + new_f) / 2, (g + new_g) / 2

    f, g = jax.lax.fori_loop(0, count, step, first)
    f, g = soft_minima(f, g, target)
    best_f, best_g = soft_minima(f, g, target)
    rows, columns = a * jnp.exp((f - best_f) / target), b * jnp.exp((g - best_g) / target)
    return Annealed(f, g, rows, columns, count)


def annealed_label_distances(
    x: Float[jax.Array, "n d"],
    x_blocks: ClassBlocks,
    y: Float[jax.Array, "m d"],
    y_blocks: ClassBlocks,
    *,
    epsilon: float = 0.1,
) -> Float[jax.Array, "cx cy"]:
    """`label_distances` as the released code computes them: each pair by a schedule of its own.

    Args:
        x: training features.
        x_blocks: rows and masses of each training class.
        y: validation features.
        y_blocks: rows and masses of each validation class.
        epsilon: the target ε, in the units of the cost.

    Returns:
        <a, f> + <b, g> of each pair, cost ½‖x − y‖².
    """
    return _annealed_pairs(x, x_blocks, y, y_blocks, epsilon)


@jax.jit
def _annealed_pairs(
    x: jax.Array, x_blocks: ClassBlocks, y: jax.Array, y_blocks: ClassBlocks, epsilon: float
) -> jax.Array:
    classes = x_blocks.rows.shape[0], y_blocks.rows.shape[0]
    no_labels = jnp.zeros((1, 1), x.dtype)

    def one_pair(number: jax.Array) -> jax.Array:
        i, j = number // classes[1], number % classes[1]
        left, right = x[x_blocks.rows[i]], y[y_blocks.rows[j]]
        a, b = jnp.asarray(x_blocks.weights)[i], jnp.asarray(y_blocks.weights)[j]
        a, b = a.astype(x.dtype), b.astype(x.dtype)
        none = jnp.zeros(left.shape[0], jnp.int32), jnp.zeros(right.shape[0], jnp.int32)
        geometry = ClassWiseGeometry(left, right, *none, no_labels)
        # padding repeats a row of the class: the box around the points is the same
        diameter = bounding_diameter(left, right)
        found = anneal(geometry, a, b, diameter=diameter, target=epsilon)
        f, g = (jnp.where(w > 0, w * p, 0) for w, p in ((a, found.f), (b, found.g)))
        return jnp.sum(f) + jnp.sum(g)

    return jax.lax.map(one_pair, jnp.arange(classes[0] * classes[1])).reshape(classes)
