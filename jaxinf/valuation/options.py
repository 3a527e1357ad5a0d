"""Checks of single options, shared by the valuation methods."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinf.errors import InputError


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """Refuse what is not a whole number of at least `minimum`.

    Raises:
        InputError: naming the option.

    Example:
        >>> check_count(0, "num_neighbours")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: num_neighbours is 0: a whole number, at least 1
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise InputError(f"{name} is {value!r}: a whole number, at least {minimum}")
    return int(value)


def check_positive(value: Any, name: str, *, zero: bool = False) -> Any:
    """Refuse a number that is not positive and finite (or zero, where `zero` says so).

    Values are not read when they are traced.

    Raises:
        InputError: naming the option.

    Example:
        >>> check_positive(float("nan"), "l2")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: l2 is nan: a positive, finite number
    """
    if isinstance(value, Tracer):
        return value
    number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"
    if not number or not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        what = "a finite number, not negative" if zero else "a positive, finite number"
        raise InputError(f"{name} is {value!r}: {what}")
    return value


def check_key(key: Any) -> jax.Array:
    """Refuse what is not one typed random key.

    Raises:
        InputError: saying how to make one.

    Example:
        >>> check_key(0)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: key is int: pass one random key, such as jax.random.key(0)
    """
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.ndim:
        what = f"{key.dtype}{list(key.shape)}" if isinstance(key, jax.Array) else type(key).__name__
        raise InputError(f"key is {what}: pass one random key, such as jax.random.key(0)")
    return key
