"""The few types that every floor shares.

The vocabulary: an *example* is a pytree of arrays; a *batch* is the same pytree with a
leading axis B; a *per-example loss* maps `(params, batch)` to float[B].
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

AnyArray: TypeAlias = jax.Array | np.ndarray
"""On a device or on the host."""

PyTree: TypeAlias = Any
"""Any nesting of tuples, dicts and registered nodes with arrays at the leaves."""

Params: TypeAlias = PyTree
"""What is differentiated: a pytree of floating-point arrays."""

Batch: TypeAlias = PyTree
"""A pytree of arrays with one common leading axis B."""

PerExampleLoss: TypeAlias = Callable[[Params, Batch], Float[jax.Array, " B"]]
"""`loss_fn(params, batch) -> float[B]`: row b depends on example b alone."""
