"""Input checks: each failure is one line that says what is wrong, where, and what to do.

Every check runs on the host, before any long work starts, and raises `InputError`.
"""

import importlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinf.typing import PyTree


class InputError(ValueError):
    """What the caller handed over cannot be used; the message says what to change."""


class MissingExtraError(ImportError):
    """An optional dependency is needed; the message names the command that installs it."""


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to get it.

    Args:
        module: name of the module to import, such as `"matplotlib.pyplot"`.
        extra: the extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module is not installed.

    Example:
        >>> require_extra("no_such_module", "cli")
        Traceback (most recent call last):
        ...
        jaxinf.errors.MissingExtraError: no_such_module is needed here: pip install 'jaxinf[cli]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module.split('.')[0]} is needed here: pip install 'jaxinf[{extra}]'"
        ) from error


def x64_enabled() -> bool:
    """Whether jax keeps float64 as it is."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def leaf_name(root: str, path: tuple[Any, ...]) -> str:
    """Name of a pytree leaf as a user would write it, such as `params['dense']['kernel']`."""
    return root + jax.tree_util.keystr(path)


def check_dtypes(tree: PyTree, name: str) -> None:
    """Refuse what the device would silently change or cannot hold.

    float64 (or complex128) leaves are refused while jax's x64 flag is off, and so are leaves
    that are not numbers. int64 leaves pass: labels commonly are, and their values fit.

    Raises:
        InputError: naming the leaf.

    Example:
        >>> check_dtypes({"x": np.zeros(3)}, "queries")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: queries['x'] is float64 but jax's x64 flag is off: ...
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or jnp.issubdtype(dtype, jax.dtypes.prng_key):
            continue
        where = leaf_name(name, path)
        if np.dtype(dtype).kind in "OUSMm":
            raise InputError(
                f"{where} has dtype {dtype}, which is not numeric: encode it as numbers, or drop it"
            )
        if np.dtype(dtype) in (np.float64, np.complex128) and not x64_enabled():
            raise InputError(
                f"{where} is {dtype} but jax's x64 flag is off: cast it to float32, or call "
                "jax.config.update('jax_enable_x64', True) first"
            )


def check_finite(tree: PyTree, name: str, *, first_row: int | None = None) -> None:
    """Refuse NaN and infinities in the floating-point leaves of a pytree.

    Args:
        tree: pytree of host or device arrays.
        name: what to call it in the message.
        first_row: when given, the leading axis counts examples and the message names the
            first bad one, counted from `first_row`.

    Raises:
        InputError: naming the leaf, how many entries are bad, and the first bad example.

    Example:
        >>> check_finite({"w": np.array([1.0, np.nan], np.float32)}, "params")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: params['w'] holds 1 NaN or infinite of 2 entries
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            continue
        on_device = isinstance(leaf, jax.Array)
        # an array that a jitted function closes over is known while that is traced
        with jax.ensure_compile_time_eval():
            # one number comes to the host, unless there is something to tell
            if on_device and bool(jnp.all(jnp.isfinite(leaf))):
                continue
            finite = np.asarray(jnp.isfinite(leaf)) if on_device else _finite(leaf)
        if finite.all():
            continue
        bad = finite.size - int(np.count_nonzero(finite))
        at = ""
        if first_row is not None and finite.ndim:
            rows = finite.reshape(finite.shape[0], -1).all(axis=1)
            at = f", first in example {first_row + int(np.argmin(rows))}"
        raise InputError(
            f"{leaf_name(name, path)} holds {bad} NaN or infinite of {finite.size} entries{at}"
        )


def _finite(leaf: Any) -> np.ndarray:
    # ml_dtypes' bfloat16 and float8 have no isfinite of their own in numpy
    array = np.asarray(leaf)
    return np.isfinite(array if array.dtype.kind == "f" else array.astype(np.float32))


def check_differentiable(params: PyTree, name: str = "params") -> None:
    """Refuse parameters that have no gradient: none at all, or not floating. Traceable.

    Raises:
        InputError: naming the leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise InputError(f"{name} holds no arrays: pass the pytree that the loss differentiates")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise InputError(
                f"{leaf_name(name, path)} is {jnp.result_type(leaf)}, which has no gradient: keep "
                "in params only what is differentiated, and close over the rest"
            )


def check_params(params: PyTree, name: str = "params") -> None:
    """Refuse parameters that cannot be differentiated: none at all, not floating, not finite.

    Raises:
        InputError: naming the leaf.
    """
    check_differentiable(params, name)
    check_dtypes(params, name)
    check_finite(params, name)


def check_examples(tree: PyTree, name: str) -> int:
    """Check that a pytree is a non-empty set of examples; return how many.

    Every leaf must be an array with the same leading axis. Values are not read.

    Raises:
        InputError: for no leaves, a leaf without a leading axis, unequal leading axes, an
            empty set, or a dtype that the device cannot hold.

    Example:
        >>> check_examples({"x": np.zeros((3, 2), np.float32), "y": np.arange(3)}, "train")
        3
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise InputError(f"{name} holds no arrays: pass a pytree of arrays with a leading axis")
    sizes = {}
    for path, leaf in leaves:
        shape = getattr(leaf, "shape", None)
        where = leaf_name(name, path)
        if not shape:
            raise InputError(
                f"{where} has no leading axis (a scalar, or no array): every leaf is one array "
                "over all examples"
            )
        sizes[where] = int(shape[0])
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{where} has {size}" for where, size in sizes.items())
        raise InputError(f"{name} has unequal leading axes: {listed}")
    count = next(iter(sizes.values()))
    if count == 0:
        raise InputError(f"{name} is empty: at least one example is needed")
    check_dtypes(tree, name)
    return count


def check_labels(labels: Any, num_classes: int, name: str = "labels") -> None:
    """Check that integer class labels lie in `0 .. num_classes - 1`.

    Args:
        labels: int[N], on the host or a device.
        num_classes: how many classes the model tells apart.
        name: what to call them in the message.

    Raises:
        InputError: for labels that are not integers, or naming the first one out of range.

    Example:
        >>> check_labels(np.array([0, 3, 10]), 10)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: labels[2] is 10, out of range for 10 classes (0 to 9)
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, not {labels.dtype}")
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        at = ", ".join(str(int(i)) for i in np.unravel_index(bad[0], labels.shape))
        value = labels.ravel()[bad[0]]
        raise InputError(
            f"{name}[{at}] is {value}, out of range for {num_classes} classes "
            f"(0 to {num_classes - 1})"
        )


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
