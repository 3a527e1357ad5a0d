"""Calibrated gradients: what mass moved onto an example, off all others, does to the distance.

Dual potentials are the derivative of the transport cost in the masses, up to a constant; the
masses must go on summing to one, and that removes the constant (LAVA, ICLR 2023).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.typing import AnyArray


def calibrated_gradients(
    f: Float[AnyArray, " N"], weights: Float[AnyArray, " N"] | None = None
) -> Float[jax.Array, " N"]:
    """f_i − Σ_{j≠i} a_j f_j / (1 − a_i): mass goes onto i, off the others in proportion.

    Sign: positive = more of this example *raises* the distance (it is worth less).

    Args:
        f: float[N], derivative of the cost in the masses, N ≥ 2.
        weights: float[N] masses a, a sum of one (default: uniform, and then the second term is
            the mean of the others).

    Returns:
        float[N], in the units of the cost.

    Raises:
        InputError: for fewer than two examples.

    Example:
        >>> found = calibrated_gradients(np.array([3.0, 0.0, 0.0], np.float32))
        >>> [round(each, 3) for each in found.tolist()]
        [3.0, -1.5, -1.5]
    """
    if f.shape[0] < 2:
        raise InputError("calibrated gradients compare an example with the others: N is 1")
    f = jnp.asarray(f)
    a = jnp.full_like(f, 1 / f.shape[0]) if weights is None else jnp.asarray(weights, f.dtype)
    mean = jnp.sum(a * f)
    return (f - mean) / (1 - a)


def group_gradients(
    f: Float[AnyArray, " N"], groups: Any, weights: Float[AnyArray, " N"] | None = None
) -> tuple[np.ndarray, Float[jax.Array, " G"]]:
    """The same for groups: mass goes onto a group's examples, off all others, in proportion.

    Sign: positive = more of this group raises the distance.

    Args:
        f: float[N], derivative of the cost in the masses.
        groups: [N] names or numbers of groups, at least two different ones.
        weights: float[N] masses, a sum of one (default: uniform).

    Returns:
        The groups in sorted order, and float[G].

    Raises:
        InputError: for the wrong length or a single group.

    Example:
        >>> names, found = group_gradients(np.array([3.0, 1.0, 0.0, 0.0], np.float32), list("aabb"))
        >>> names.tolist(), found.tolist()
        (['a', 'b'], [2.0, -2.0])
    """
    groups = np.asarray(groups)
    if groups.shape != tuple(f.shape):
        raise InputError(f"groups must have shape [{f.shape[0]}], not {groups.shape}")
    names, of_rows = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"all examples are of group {names[0]!r}: there is no other to compare")
    f = jnp.asarray(f)
    a = jnp.full_like(f, 1 / f.shape[0]) if weights is None else jnp.asarray(weights, f.dtype)
    mass = jax.ops.segment_sum(a, of_rows, len(names))
    inside = jax.ops.segment_sum(a * f, of_rows, len(names))
    return names, inside / mass - (jnp.sum(inside) - inside) / (1 - mass)
