"""Identity of pytrees of arrays and of traced programs, for stores that must not be mixed up."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.typing import PyTree


def fingerprint(tree: PyTree) -> str:
    """SHA-256 of a pytree: its structure, and every leaf's dtype, shape and bytes.

    Device arrays are copied to the host for it.

    Example:
        >>> a = fingerprint({"w": np.zeros(3, np.float32)})
        >>> a == fingerprint({"w": np.zeros(3, np.float32)}), a == fingerprint({"w": np.zeros(3)})
        (True, False)
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def program_fingerprint(fn: Callable[..., Any], *args: PyTree) -> str:
    """Identity of what a function computes on arguments of these shapes.

    It hashes the traced program and the arrays that the function closes over, so that a
    changed formula, step size or frozen statistic is a changed program.

    Example:
        >>> x = np.ones(2, np.float32)
        >>> program_fingerprint(lambda x: x * 2, x) == program_fingerprint(lambda x: x * 3, x)
        False
    """
    closed = jax.make_jaxpr(fn)(*args)
    # addresses of Python objects change from one process to the next
    text = re.sub(r"0x[0-9a-f]+", "0x", str(closed.jaxpr))
    digest = hashlib.sha256(text.encode())
    digest.update(fingerprint(closed.consts).encode())
    return digest.hexdigest()
