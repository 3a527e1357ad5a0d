"""Squared Euclidean distances by one matrix product."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_float32(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, all of whose matrix products keep float32's accuracy on every backend.

    Example:
        >>> in_float32(jnp.matmul)(jnp.ones((1, 2)), jnp.ones((2, 1))).tolist()
        [[2.0]]
    """

    @functools.wraps(function)
    def precise(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise


def float32_products(dtype: Any = jnp.float32) -> Any:
    """The precision of a matrix product with float32's accuracy, and the fastest on the backend.

    The default of GPUs and TPUs is coarser, and would reorder near neighbours. On a GPU three
    TF32 products make one of float32.

    Example:
        >>> x = jnp.array([[1.0, 2.0]])
        >>> jnp.matmul(x, x.T, precision=float32_products()).tolist()
        [[5.0]]
    """
    if jax.default_backend() == "gpu" and dtype == jnp.float32:
        return jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    return jax.lax.Precision.HIGHEST


def centre_together(
    train: Float[jax.Array, "N d"], valid: Float[jax.Array, "M d"]
) -> tuple[Float[jax.Array, "N d"], Float[jax.Array, "M d"]]:
    """Shift both sets by the training mean; distances stay, rounding errors shrink.

    Half-precision features become float32: their squares would not fit.

    Example:
        >>> centre_together(jnp.array([[1.0], [3.0]]), jnp.array([[5.0]]))[1].tolist()
        [[3.0]]
    """
    dtype = jnp.promote_types(jnp.result_type(train, valid), jnp.float32)
    train, valid = train.astype(dtype), valid.astype(dtype)
    mean = jnp.mean(train, axis=0, keepdims=True)
    return train - mean, valid - mean


def squared_distances(
    x: Float[jax.Array, "N d"], y: Float[jax.Array, "M d"]
) -> Float[jax.Array, "N M"]:
    """Squared Euclidean distance of every row of x from every row of y.

    From ‖x‖² + ‖y‖² − 2⟨x, y⟩ in float32's precision, so centre the rows first.

    Example:
        >>> squared_distances(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])).tolist()
        [[25.0]]
    """
    products = jnp.matmul(x, y.T, precision=float32_products(x.dtype))
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None, :]
    return jnp.maximum(squares - 2 * products, 0)
