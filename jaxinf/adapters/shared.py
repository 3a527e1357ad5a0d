"""What every adapter shares: the model's input, keyword arguments, and equality of losses."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PyTree

Inputs: TypeAlias = Hashable | Callable[[Batch], PyTree]
"""Where a batch holds the model's input: a key, a position, or a function of the batch."""

OutputLoss: TypeAlias = Callable[[Any, Batch], Float[jax.Array, " B"]]
"""`loss(outputs, batch) -> float[B]`: the model's outputs against the batch's targets."""


class StatefulLoss(Protocol):
    """A per-example loss that can also run in train mode, and then moves the model's state."""

    def __call__(
        self,
        params: Params,
        state: PyTree,
        batch: Batch,
        *,
        train: bool,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[jax.Array, " B"], PyTree]:
        """Losses and state: moved when `train`, else as it came. `train` is a Python bool."""
        ...


class ByValue:
    """Base of the callables behind the losses: dataclasses that are equal when their fields are.

    jit's cache compares functions by equality, so two checkpoints of one model share one
    compiled program. A field that cannot be hashed makes its owner equal only to itself.
    """

    def _key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        try:
            return hash((type(self), self._key()))
        except TypeError:
            return id(self)

    def __eq__(self, other: object) -> bool:
        if self is other or type(self) is not type(other) or hash(self) != hash(other):
            return self is other
        return self._key() == other._key()  # type: ignore[attr-defined]


def pick_inputs(batch: Batch, inputs: Inputs) -> PyTree:
    """Take the model's input out of a batch.

    Args:
        batch: dict or tuple of arrays, or anything that `inputs` understands.
        inputs: key (dict batches), position (tuple batches) or `batch -> model input`.

    Raises:
        InputError: the batch has no such key or position.

    Example:
        >>> pick_inputs(("image", "label"), 0)
        'image'
    """
    if callable(inputs):
        return inputs(batch)
    try:
        return batch[inputs]
    except (KeyError, IndexError, TypeError) as error:
        held = f"keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch)
        raise InputError(
            f"the batch has no entry {inputs!r} (it has {held}): say where the model's input is "
            "with inputs=, a key, a position or a function of the batch"
        ) from error


def split_keywords(
    keywords: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Split keyword arguments into those that hold arrays, to be traced, and the static rest.

    Returns:
        The traced ones as a dict, and the static ones as sorted, hashable pairs.
    """
    traced = {name: value for name, value in keywords.items() if _holds_arrays(value)}
    static = {name: value for name, value in keywords.items() if name not in traced}
    return traced, tuple(sorted(static.items()))


def _holds_arrays(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))
