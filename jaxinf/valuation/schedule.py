"""The released code's solver, step for step: what LAVA's published values were computed with.

It anneals ε from the squared diameter of the data down to its target by factors of four, with
both potentials updated from the old ones and averaged, one step per ε, and one full update at
the end (geomloss 0.2.6, `sinkhorn_loop`, as LAVA calls it). That is ten or so steps: the result
solves no transport problem, and `converged` will say so.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ott.geometry.geometry import Geometry

from jaxinf.valuation.classes import ClassBlocks
from jaxinf.valuation.geometry import ClassWiseGeometry


class Annealed(NamedTuple):
    """Potentials that stand beside the masses, as elsewhere here: a b exp((f + g − c)/ε)."""

    f: Float[jax.Array, " n"]
    g: Float[jax.Array, " m"]


def epsilon_schedule(diameter: float, blur: float, *, scaling: float = 0.5, p: float = 2) -> list:
    """ε = diam^p, then the p-th powers of lengths that shrink by `scaling`, and blur^p.

    Args:
        diameter: an upper bound on the distance of two points.
        blur: the length whose p-th power is the target ε.
        scaling: the factor from one length to the next.
        p: cost exponent.

    Returns:
        The values of ε, largest first. The second equals the first.

    Example:
        >>> [round(epsilon, 3) for epsilon in epsilon_schedule(4.0, 1.0)]
        [16.0, 16.0, 4.0, 1.0]
    """
    exponents = np.arange(p * np.log(diameter), p * np.log(blur), p * np.log(scaling))
    return [diameter**p, *np.exp(exponents).tolist(), blur**p]


def bounding_diameter(*points: jax.Array) -> float:
    """Diagonal of the box around some sets of points, float[n, d] each."""
    low = jnp.min(jnp.stack([jnp.min(p, axis=0) for p in points]), axis=0)
    high = jnp.max(jnp.stack([jnp.max(p, axis=0) for p in points]), axis=0)
    return float(jnp.linalg.norm(high - low))


def anneal(
    geometry: Geometry,
    a: Float[jax.Array, " n"],
    b: Float[jax.Array, " m"],
    schedule: Float[jax.Array, " k"],
    target: float | jax.Array,
) -> Annealed:
    """Run the schedule.

    Args:
        geometry: any ott geometry.
        a: float[n] masses, 0 for padding.
        b: float[m] masses, 0 for padding.
        schedule: the values of ε in order; zeros (padding, at the end) are passed over.
        target: ε of the last update.

    Returns:
        The potentials after one step per ε and one full update at the last.
    """
    log_a, log_b = jnp.log(a), jnp.log(b)

    def updated(f: jax.Array, g: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
        zeros_f, zeros_g = jnp.zeros_like(f), jnp.zeros_like(g)
        lse: Any = geometry.apply_lse_kernel
        of_f = -lse(zeros_f, epsilon * log_b + g, epsilon, axis=1)[0]
        of_g = -lse(epsilon * log_a + f, zeros_g, epsilon, axis=0)[0]
        return of_f, of_g

    def step(pair: tuple[jax.Array, jax.Array], epsilon: jax.Array):
        f, g = pair
        new_f, new_g = updated(f, g, jnp.where(epsilon > 0, epsilon, target))
        half = jnp.where(epsilon > 0, 0.5, 0)
        return (f + half * (new_f - f), g + half * (new_g - g)), None

    first = updated(jnp.zeros_like(a), jnp.zeros_like(b), schedule[0])
    (f, g), _ = jax.lax.scan(step, first, schedule)
    return Annealed(*updated(f, g, jnp.asarray(target, geometry.dtype)))


def annealed_label_distances(
    x: Float[jax.Array, "n d"],
    x_blocks: ClassBlocks,
    y: Float[jax.Array, "m d"],
    y_blocks: ClassBlocks,
    *,
    blur: float = 0.1**0.5,
) -> Float[jax.Array, "cx cy"]:
    """`label_distances` as the released code computes them: one schedule for each pair.

    Args:
        x: training features.
        x_blocks: rows and masses of each training class.
        y: validation features.
        y_blocks: rows and masses of each validation class.
        blur: the length whose square is ε.

    Returns:
        <a, f> + <b, g> of each pair, cost ½‖x − y‖².
    """
    boxes = [
        [(np.asarray(s)[rows].min(axis=1), np.asarray(s)[rows].max(axis=1))]
        for s, rows in ((x, x_blocks.rows), (y, y_blocks.rows))
    ]
    (x_low, x_high), (y_low, y_high) = boxes[0][0], boxes[1][0]
    low = np.minimum(x_low[:, None], y_low[None])
    high = np.maximum(x_high[:, None], y_high[None])
    schedules = [
        epsilon_schedule(max(float(diameter), blur), blur)
        for diameter in np.linalg.norm(high - low, axis=-1).ravel()
    ]
    longest = max(map(len, schedules))
    padded = np.array([s + [0.0] * (longest - len(s)) for s in schedules], np.float32)
    return _annealed_pairs(x, *x_blocks, y, *y_blocks, padded.astype(x.dtype), blur**2)


@jax.jit
def _annealed_pairs(x, x_rows, x_weights, y, y_rows, y_weights, schedules, target):
    shape = len(x_rows), len(y_rows)
    no_labels = jnp.zeros((1, 1), x.dtype)

    def one_pair(pair):
        number, schedule = pair
        left, right = x[x_rows[number // shape[1]]], y[y_rows[number % shape[1]]]
        a = x_weights[number // shape[1]].astype(x.dtype)
        b = y_weights[number % shape[1]].astype(x.dtype)
        none = jnp.zeros(left.shape[0], jnp.int32), jnp.zeros(right.shape[0], jnp.int32)
        f, g = anneal(ClassWiseGeometry(left, right, *none, no_labels), a, b, schedule, target)
        return jnp.sum(jnp.where(a > 0, a * f, 0)) + jnp.sum(jnp.where(b > 0, b * g, 0))

    return jax.lax.map(one_pair, (jnp.arange(shape[0] * shape[1]), schedules)).reshape(shape)
