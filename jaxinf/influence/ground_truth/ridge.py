"""Leave-one-out influence of ridge regression in closed form, through the hat matrix."""

import functools

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_dtypes, check_finite

_EXACT = jax.lax.Precision.HIGHEST


def leave_one_out_ridge(
    features: ArrayLike,
    targets: ArrayLike,
    query_features: ArrayLike,
    query_targets: ArrayLike,
    *,
    l2: float,
) -> Float[jax.Array, "K N"]:
    """What leaving out each example does to each query's squared error; nothing is retrained.

    The model minimises (1/N) Σ ‖xᵢW − yᵢ‖² + (l2/2) ‖W‖², the objective of `leave_one_out` with
    `jaxinf.models.squared_error`. With A = XᵀX + (N·l2/2) I and the leverage hᵢ = xᵢᵀA⁻¹xᵢ, leaving
    out i moves the model by −A⁻¹xᵢ (yᵢ − xᵢW) / (1 − hᵢ), exactly. Jits.

    Args:
        features: float[N, d]; append a column of ones for an intercept, which is then penalised.
        targets: float[N] or float[N, C].
        query_features: float[K, d].
        query_targets: float[K] or float[K, C].
        l2: penalty; positive unless the features have full column rank.

    Returns:
        float[K, N], the query's loss without the example minus with it: positive = training on
        the example lowers the query's loss (a proponent).

    Raises:
        InputError: for shapes that do not fit together, values that are not finite, a negative
            penalty, or a penalty of zero on features without full column rank.

    Example:
        >>> x, y = jnp.array([[1.0], [1.0]]), jnp.array([1.0, 3.0])
        >>> print(leave_one_out_ridge(x, y, x[:1], jnp.array([0.0]), l2=0.0).round(2))
        [[ 5. -3.]]
    """
    named = {
        "features": features,
        "targets": targets,
        "query_features": query_features,
        "query_targets": query_targets,
    }
    check_dtypes(named, "ridge")
    x, y, xq, yq = (jnp.asarray(array) for array in named.values())
    y, yq = (a[:, None] if a.ndim == 1 else a for a in (y, yq))
    if x.ndim != 2 or xq.ndim != 2 or x.shape[1] != xq.shape[1] or not x.size or not xq.size:
        raise InputError(
            f"features {list(x.shape)} and query_features {list(xq.shape)} do not fit: [N, d] and "
            "[K, d] are needed"
        )
    if y.shape[0] != x.shape[0] or yq.shape != (xq.shape[0], y.shape[1]):
        raise InputError(
            f"targets {list(y.shape)} and query_targets {list(yq.shape)} do not fit {x.shape[0]} "
            f"examples and {xq.shape[0]} queries"
        )
    if isinstance(l2, Tracer) or isinstance(x, Tracer):
        return _influences(x, y, xq, yq, l2)
    check_finite(named, "ridge", first_row=0)
    if not 0 <= l2 < float("inf"):
        raise InputError(f"l2 is {l2}: a finite number, not negative")
    influences = _influences(x, y, xq, yq, l2)
    if not bool(jnp.isfinite(influences).all()):
        raise InputError(
            "the model has no single minimum, or loses it without one of the examples: raise l2"
        )
    return influences


@jax.jit
def _influences(
    x: jax.Array, y: jax.Array, xq: jax.Array, yq: jax.Array, l2: float | jax.Array
) -> jax.Array:
    product = functools.partial(jnp.matmul, precision=_EXACT)
    count, width = x.shape
    moment = product(x.T, x) + jnp.asarray(count * l2 / 2, x.dtype) * jnp.eye(width, dtype=x.dtype)
    factor = jax.scipy.linalg.cho_factor(moment)
    solved = jax.scipy.linalg.cho_solve(factor, x.T)
    weights = product(solved, y)
    leverage = jnp.sum(x.T * solved, axis=0)
    residuals = y - product(x, weights)
    before = product(xq, weights) - yq
    reach = product(xq, solved) / (1 - leverage)[None, :]
    # ‖before − reach · residual‖² − ‖before‖², written so that small changes keep their digits
    squares = jnp.sum(residuals**2, axis=1)[None, :]
    return reach**2 * squares - 2 * reach * product(before, residuals.T)
