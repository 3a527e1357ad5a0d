"""The transport problem between two labelled sets, posed: geometry, masses, ε."""

import functools
import warnings
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxinf.engine.mesh import Mesh, data_parallel, num_shards, replicate
from jaxinf.errors import InputError
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.label_distances import costs_and_errors, unsolved
from jaxinf.valuation.sides import Side, ValuationWarning

LabelCost = Literal["consistent", "reference"]


class Posed(NamedTuple):
    """What a solver is given.

    Attributes:
        geometry: the cost, in the units of the feature cost.
        train: the training side.
        valid: the validation side.
        epsilon: in the units of the cost.
    """

    geometry: ClassWiseGeometry
    train: Side
    valid: Side
    epsilon: Float[jax.Array, ""]


def between_classes(
    train: Side,
    valid: Side,
    *,
    epsilon: float,
    label_weight: float,
    p: float,
    mesh: Mesh | None = None,
) -> tuple[Float[jax.Array, "cx cy"], Float[jax.Array, ""]]:
    """`label_distances` of two sides and their largest marginal error.

    Both are zero where labels have no weight. The training classes are split over the mesh's
    devices.

    Raises:
        InputError: ε is below what the dtype resolves.

    Warns:
        ValuationWarning: some were given up before they were solved. Not looked at if traced.
    """
    if label_weight == 0:
        dtype = train.features.dtype
        return jnp.zeros((len(train.classes), len(valid.classes)), dtype), jnp.zeros((), dtype)
    check_label_epsilon(epsilon, train.features.dtype)
    found = _costs_and_errors(train, valid, epsilon, p, mesh)
    if not isinstance(found, Tracer) and (said := unsolved(np.asarray(found[..., 1]))):
        warnings.warn(said, ValuationWarning, stacklevel=3)
    return found[..., 0], jnp.max(found[..., 1])


def _costs_and_errors(
    train: Side, valid: Side, epsilon: float, p: float, mesh: Mesh | None
) -> Float[jax.Array, "cx cy 2"]:
    x_blocks, y_blocks = train.blocks, valid.blocks
    if mesh is None or len(train.classes) < num_shards(mesh):
        return _solve_pairs(
            train.features, *x_blocks, valid.features, *y_blocks, epsilon=epsilon, p=p
        )
    shards = num_shards(mesh)
    count = -(-len(train.classes) // shards) * shards

    def padded(array: np.ndarray) -> np.ndarray:
        extra = np.repeat(array[:1], count - len(array), axis=0)
        return np.concatenate([array, extra]).reshape(shards, count // shards, *array.shape[1:])

    state = (train.features, valid.features, *map(jnp.asarray, y_blocks), jnp.asarray(epsilon))
    rows = padded(x_blocks.rows), padded(x_blocks.weights)
    found = _pairs_over(mesh, p)(replicate(state, mesh), *rows)
    return jnp.asarray(np.asarray(found).reshape(count, -1, 2)[: len(train.classes)])


@functools.lru_cache(maxsize=16)
def _pairs_over(mesh: Mesh, p: float) -> Any:
    """Compiled once for each mesh."""

    def of_some_classes(state: Any, rows: jax.Array, weights: jax.Array) -> jax.Array:
        x, y, y_rows, y_weights, epsilon = state
        return costs_and_errors(x, rows, weights, y, y_rows, y_weights, epsilon=epsilon, p=p)

    return data_parallel(of_some_classes, mesh, num_row_args=2)


_solve_pairs = jax.jit(costs_and_errors, static_argnames="p")


def cost_between(
    train: Side,
    valid: Side,
    between: Float[jax.Array, "cx cy"],
    *,
    feature_weight: float,
    label_weight: float,
    p: float,
) -> ClassWiseGeometry:
    """The ground cost of two sides whose label distances are known."""
    return ClassWiseGeometry(
        train.features,
        valid.features,
        jnp.asarray(train.labels),
        jnp.asarray(valid.labels),
        between,
        feature_weight=feature_weight,
        label_weight=label_weight,
        p=p,
    )


def pose(
    train: Side,
    valid: Side,
    between: Float[jax.Array, "cx cy"],
    *,
    epsilon: float,
    relative_epsilon: bool = True,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    p: float = 2,
) -> Posed:
    """Put the cost together and fix ε.

    Args:
        train: the training side.
        valid: the validation side.
        between: label distances in the units of the feature cost.
        epsilon: strength of the entropic term.
        relative_epsilon: whether it is a share of the mean cost.
        feature_weight: λx.
        label_weight: λy.
        p: cost exponent.

    Raises:
        InputError: ε is below what the dtype resolves.
    """
    geometry = cost_between(
        train, valid, between, feature_weight=feature_weight, label_weight=label_weight, p=p
    )
    strength, mean = strength_of(
        geometry, train.weights, valid.weights, epsilon, relative=relative_epsilon
    )
    check_resolution(strength, mean, geometry.dtype)
    return Posed(geometry, train, valid, strength)


def check_label_epsilon(epsilon: float, dtype: Any) -> None:
    """Refuse an ε of label distances, a share of their mean cost, that the dtype does not resolve.

    Raises:
        InputError: naming an ε that will do.
    """
    least = 16 * float(jnp.finfo(dtype).eps)
    if epsilon < least:
        raise InputError(
            f"label_epsilon={epsilon:.3g} is below what {dtype} resolves: raise it to {least:.2g} "
            "or more"
        )


def check_resolution(strength: jax.Array, mean: jax.Array, dtype: Any) -> None:
    """Refuse an ε whose exponents, costs over ε, the dtype does not resolve. Not read if traced.

    Raises:
        InputError: naming an ε that will do.
    """
    if isinstance(strength, Tracer) or isinstance(mean, Tracer):
        return
    least = float(16 * mean * jnp.finfo(dtype).eps)
    if least > float(strength):
        raise InputError(
            f"epsilon={float(strength):.3g} is below what {dtype} resolves for costs of mean "
            f"{float(mean):.3g}: raise it to {least:.2g} or more, or pass float64 features with "
            "jax's x64 flag on"
        )


@functools.partial(jax.jit, static_argnames="relative")
def strength_of(
    geometry: ClassWiseGeometry, a: jax.Array, b: jax.Array, epsilon: float, *, relative: bool
) -> tuple[jax.Array, jax.Array]:
    """ε in the units of the cost, fixed for derivatives, and the mean cost."""
    mean = jax.lax.stop_gradient(geometry.mean_under(a, b))
    return epsilon * (mean if relative else jnp.ones_like(mean)), mean
