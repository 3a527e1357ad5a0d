"""From the user's model to the one thing the library needs: `loss_fn(params, batch) -> float[B]`.

Each `from_*` returns `(loss_fn, params)`. `loss_fn` is a `jax.tree_util.Partial` that carries
whatever is not differentiated (BatchNorm statistics, random-number state) as arrays, so that a
jitted function that takes it as an argument traces them: a new checkpoint of the same model
compiles nothing anew. Plain functions need no adapter.

Each framework is imported when its adapter is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "StatefulLoss": "jaxinf.adapters.shared",
    "check_loss_shape": "jaxinf.adapters.check",
    "check_per_example": "jaxinf.adapters.check",
    "from_equinox": "jaxinf.adapters.equinox",
    "from_haiku": "jaxinf.adapters.haiku",
    "from_linen": "jaxinf.adapters.linen",
    "from_nnx": "jaxinf.adapters.nnx",
    "stateful_from_linen": "jaxinf.adapters.linen",
    "stateful_from_nnx": "jaxinf.adapters.nnx",
}

__all__ = [
    "StatefulLoss",
    "check_loss_shape",
    "check_per_example",
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "stateful_from_linen",
    "stateful_from_nnx",
]

if TYPE_CHECKING:
    from jaxinf.adapters.check import check_loss_shape, check_per_example
    from jaxinf.adapters.equinox import from_equinox
    from jaxinf.adapters.haiku import from_haiku
    from jaxinf.adapters.linen import from_linen, stateful_from_linen
    from jaxinf.adapters.nnx import from_nnx, stateful_from_nnx
    from jaxinf.adapters.shared import StatefulLoss


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxinf.adapters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
