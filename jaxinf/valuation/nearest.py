"""The distance to the nearest validation example: the baseline that must stand beside LAVA."""

import jax
import jax.numpy as jnp

from jaxinf.typing import AnyArray
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.inputs import Values
from jaxinf.valuation.pose import between_classes, cost_between
from jaxinf.valuation.sides import read_sides, warn_of_classes


def nearest_validation(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    label_epsilon: float = 0.05,
    p: float = 2,
) -> Values:
    """Minus the cost of the cheapest validation example, under the same cost as `lava`.

    It needs no transport solve, and for label noise it does as well as LAVA; it cannot see that
    an example is one of too many of its kind.

    Sign: higher = more worth having.

    Args:
        train_features: float[N, ...].
        train_labels: int[N], or float[N, C] shares.
        valid_features: float[M, ...].
        valid_labels: int[M], or float[M, C'].
        feature_weight: λx, as in `lava`.
        label_weight: λy; at 0 the plain nearest neighbour.
        label_epsilon: as in `lava`.
        p: cost exponent.

    Returns:
        values float[N] ≤ 0.

    Raises:
        InputError: see `lava`.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[0.0], [1.0], [3.0]], np.float32), np.array([0, 0, 0])
        >>> nearest_validation(x, y, x[:2], y[:2], label_weight=0.0).values.tolist()
        [-0.0, -0.0, -2.0]
    """
    train, valid = read_sides(train_features, train_labels, valid_features, valid_labels)
    warn_of_classes(train, valid)
    between, _ = between_classes(
        train, valid, epsilon=label_epsilon, label_weight=label_weight, p=p
    )
    geometry = cost_between(
        train, valid, between, feature_weight=feature_weight, label_weight=label_weight, p=p
    )
    return Values(-_cheapest(geometry))


@jax.jit
def _cheapest(geometry: ClassWiseGeometry) -> jax.Array:
    return geometry.over_tiles(lambda carry, cost: (carry, jnp.min(cost, axis=1)), None)[1]
