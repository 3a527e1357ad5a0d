"""What the attacks check before any long work: each refusal is one line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxinf.errors import InputError, check_examples, check_finite


def check_features(features: Any, name: str) -> Float[jax.Array, "N d"]:
    """Check features, one row per example; return them as float[N, d] on the device.

    Values are not read when they are traced.

    Raises:
        InputError: for other ranks, no rows or columns, NaN or infinities, rows of zeros.

    Example:
        >>> check_features(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), "image_features")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: image_features[1] is all zeros, which has no direction
    """
    check_examples(features, name)
    if getattr(features, "ndim", None) != 2 or not features.shape[1]:
        raise InputError(f"{name} have shape {np.shape(features)}: one row per example, [N, d]")
    if not isinstance(features, Tracer):
        check_finite(features, name, first_row=0)
        zero = np.flatnonzero(~np.asarray(features).any(axis=1))
        if zero.size:
            raise InputError(f"{name}[{zero[0]}] is all zeros, which has no direction")
    array = jnp.asarray(features)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def check_vectors(**vectors: Any) -> None:
    """Refuse scores that are not float[N] with one common N, or not finite.

    Raises:
        InputError: naming the array.

    Example:
        >>> check_vectors(similarity=np.ones(3, np.float32), reference=np.ones(2, np.float32))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: similarity and reference have 3 and 2 entries: one per example
    """
    for name, vector in vectors.items():
        if getattr(vector, "ndim", None) != 1:
            raise InputError(f"{name} has shape {np.shape(vector)}: one number per example, [N]")
        check_examples(vector, name)
        if not isinstance(vector, Tracer):
            check_finite(vector, name, first_row=0)
    if len({vector.shape[0] for vector in vectors.values()}) > 1:
        sizes = " and ".join(str(vector.shape[0]) for vector in vectors.values())
        raise InputError(f"{' and '.join(vectors)} have {sizes} entries: one per example")
