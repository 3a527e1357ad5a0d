"""What training data does to a model: influence, value and membership, in JAX.

`import jaxinf` touches no device and imports nothing heavy: the public names below are
loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that holds it
_LAZY = {
    "attribute": "jaxinf.influence",
    "Attribution": "jaxinf.influence",
    "Attributor": "jaxinf.influence",
    "InputError": "jaxinf.errors",
    "MissingExtraError": "jaxinf.errors",
}
_SUBPACKAGES = (
    "adapters",
    "datasets",
    "engine",
    "errors",
    "evaluation",
    "influence",
    "membership",
    "models",
    "valuation",
)

__all__ = ["__version__", *_LAZY, *_SUBPACKAGES]

if TYPE_CHECKING:
    from jaxinf import adapters as adapters
    from jaxinf import datasets as datasets
    from jaxinf import engine as engine
    from jaxinf import errors as errors
    from jaxinf import evaluation as evaluation
    from jaxinf import influence as influence
    from jaxinf import membership as membership
    from jaxinf import models as models
    from jaxinf import valuation as valuation
    from jaxinf.errors import InputError as InputError
    from jaxinf.errors import MissingExtraError as MissingExtraError
    from jaxinf.influence import Attribution as Attribution
    from jaxinf.influence import Attributor as Attributor
    from jaxinf.influence import attribute as attribute


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"jaxinf.{name}")
    raise AttributeError(f"module 'jaxinf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
