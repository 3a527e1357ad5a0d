"""Transport between batches of both sets: values of sets too large for one problem (SAVA).

Every training batch meets every validation batch; a transport problem over the batches, whose
costs are the distances of the pairs, weighs what each meeting says about the example.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int
from ott.geometry.geometry import Geometry

from jaxinf.errors import InputError
from jaxinf.typing import AnyArray
from jaxinf.valuation.calibration import calibrated_gradients
from jaxinf.valuation.distances import in_float32
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.label_distances import FAR
from jaxinf.valuation.pose import between_classes, cost_between
from jaxinf.valuation.sides import read_sides, warn_of_classes
from jaxinf.valuation.transport import solve_transport


class HierarchicalResult(NamedTuple):
    """Values from batches.

    Attributes:
        values: float[N], higher = more worth having; rows are those of the training set.
        calibrated_gradients: float[N].
        batch_distances: float[B, B'], the distance of each pair of batches.
        plan: float[B, B'], the transport between batches.
        converged: bool, whether every problem, the one over batches, and the label distances
            were solved.
    """

    values: jax.Array
    calibrated_gradients: jax.Array
    batch_distances: jax.Array
    plan: jax.Array
    converged: bool | jax.Array


@in_float32
def sava(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    batch_size: int = 1024,
    epsilon: float = 0.05,
    tau: float = 0.9,
    label_epsilon: float = 0.05,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    p: float = 2,
    seed: int = 0,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> HierarchicalResult:
    """Batched hierarchical transport (Kessler et al., ICLR 2025), defects of its code mended.

    The potentials of a pair of batches are known up to a constant only, and constants that differ
    from batch to batch would decide the order of the values: each pair's are calibrated before
    they are mixed, and the distance of the batch is added back by the potential over batches.
    Label distances are computed once, on the whole sets. Rows keep their order.

    Sign: higher = more worth having.

    Args:
        train_features: float[N, ...].
        train_labels: int[N] or float[N, C].
        valid_features: float[M, ...].
        valid_labels: int[M] or float[M, C'].
        batch_size: examples per batch, at least 2, on both sides; the last batch is padded with
            examples of no mass.
        epsilon: as in `lava`, relative to the mean cost of the pair.
        tau: as in `lava`; 1 is balanced.
        label_epsilon: as in `lava`.
        feature_weight: λx.
        label_weight: λy.
        p: cost exponent.
        seed: how examples are dealt to batches.
        threshold: marginal error of each solve.
        max_iterations: where to give up on one.

    Returns:
        Values and the problem over batches. It composes with jit in the features, labels closed
        over.

    Raises:
        InputError: see `lava`.

    Example:
        >>> x, y = np.array([[0.0], [0.1], [0.2], [5.0]], np.float32), np.zeros(4, int)
        >>> found = sava(x, y, x[:3], y[:3], batch_size=2, label_weight=0.0)
        >>> int(np.argmin(found.values))
        3
    """
    if batch_size < 2:
        raise InputError(f"batch_size must be at least 2, not {batch_size}")
    if not 0 < tau <= 1:
        raise InputError(f"tau must lie in (0, 1], not {tau}")
    train, valid = read_sides(train_features, train_labels, valid_features, valid_labels)
    warn_of_classes(train, valid)
    between, error = between_classes(
        train, valid, epsilon=label_epsilon, label_weight=label_weight, p=p
    )
    rows, masses = _deal(train.features.shape[0], batch_size, seed)
    columns, valid_masses = _deal(valid.features.shape[0], batch_size, seed + 1)
    geometry = cost_between(
        train, valid, between, feature_weight=feature_weight, label_weight=label_weight, p=p
    )
    options = {"threshold": threshold, "max_iterations": max_iterations}
    f, distances, solved = _solve_pairs(
        geometry, rows, masses, columns, valid_masses, epsilon, tau=tau, **options
    )
    a = jnp.sum(masses, axis=1) / jnp.sum(masses)
    b = jnp.sum(valid_masses, axis=1) / jnp.sum(valid_masses)
    strength = epsilon * jnp.mean(distances)
    outer = solve_transport(Geometry(distances), a, b, epsilon=strength, tau_b=tau, **options)
    logits = (outer.f[:, None] + outer.g[None, :] - distances) / strength
    plan = a[:, None] * b[None, :] * jnp.exp(logits)
    mixed = jnp.einsum("ij,ijs->is", plan / a[:, None], f) + outer.f[:, None]
    real = masses > 0
    scattered = jnp.zeros(train.features.shape[0], mixed.dtype)
    scattered = scattered.at[rows[real]].set(mixed[real])
    gradients = calibrated_gradients(scattered)
    converged = jnp.all(solved) & outer.converged & (error <= FAR)
    if not isinstance(converged, Tracer):
        converged = bool(converged)
    return HierarchicalResult(-gradients, gradients, distances, plan, converged)


def _deal(
    count: int, size: int, seed: int
) -> tuple[Int[np.ndarray, "b s"], Float[np.ndarray, "b s"]]:
    """Deal shuffled rows to batches of near-equal size; padding has no mass."""
    batches = -(-count // size)
    order = np.random.default_rng(seed).permutation(count)
    rows = np.zeros((batches, -(-count // batches)), np.int32)
    masses = np.zeros(rows.shape, np.float32)
    for number, part in enumerate(np.array_split(order, batches)):
        rows[number, : len(part)] = part
        masses[number, : len(part)] = 1 / count
    return rows, masses


def _solve_pairs_of(
    geometry: ClassWiseGeometry,
    rows: jax.Array,
    masses: jax.Array,
    columns: jax.Array,
    valid_masses: jax.Array,
    epsilon: float,
    *,
    tau: float,
    threshold: float,
    max_iterations: int,
) -> Any:
    def pair(numbers: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, j = numbers
        a = (masses[i] / jnp.sum(masses[i])).astype(geometry.dtype)
        b = (valid_masses[j] / jnp.sum(valid_masses[j])).astype(geometry.dtype)
        part = ClassWiseGeometry(
            geometry.x[rows[i]],
            geometry.y[columns[j]],
            geometry.x_labels[rows[i]],
            geometry.y_labels[columns[j]],
            geometry.label_distances,
            feature_weight=geometry.feature_weight,
            label_weight=geometry.label_weight,
            p=geometry.p,
        )
        cost = part.cost_matrix
        found = solve_transport(
            Geometry(cost),
            a,
            b,
            epsilon=epsilon * (a @ cost @ b),
            tau_b=tau,
            threshold=threshold,
            max_iterations=max_iterations,
        )
        distance = a @ found.f + b @ found.g
        return found.f - a @ found.f, distance, found.converged

    shape = len(rows), len(columns)
    grid = jnp.meshgrid(jnp.arange(shape[0]), jnp.arange(shape[1]), indexing="ij")
    flat = jax.tree.map(jnp.ravel, tuple(grid))
    f, distances, solved = jax.lax.map(pair, flat)
    return f.reshape(*shape, -1), distances.reshape(shape), solved


_solve_pairs = jax.jit(_solve_pairs_of, static_argnames="tau")
