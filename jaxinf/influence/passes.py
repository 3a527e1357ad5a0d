"""Passing over the training set on the query side: sums over its rows, block by block."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.errors import InputError
from jaxinf.typing import Batch, PyTree

# Training sets up to this size stay on the device from one pass to the next.
_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class TrainingRows:
    """N training examples as blocks `(batch, mask)`, as often as they are asked for.

    Attributes:
        blocks: iterable; `mask` is bool[B], false for the padding of the last block.
        count: N.
        num_blocks: how many blocks make up one pass.
    """

    blocks: Iterable[tuple[Batch, Any]]
    count: int
    num_blocks: int

    def __iter__(self) -> Iterator[tuple[Batch, Any]]:
        return iter(self.blocks)

    def total(self, fn: Callable[[Batch, Any], PyTree]) -> PyTree:
        """Sum of `fn(batch, mask)` over the blocks of one pass."""
        parts = (fn(batch, mask) for batch, mask in self)
        total = next(parts)
        for part in parts:
            total = jax.tree.map(jnp.add, total, part)
        return total


@dataclass(frozen=True)
class _Streamed:
    stream: Stream

    def __iter__(self) -> Iterator[tuple[Batch, Any]]:
        return ((block.batch, block.mask) for block in self.stream)


def training_rows(train: Stream | None, method: str) -> TrainingRows:
    """The training set as `prepare` passes over it.

    Args:
        train: what `attribute` hands to `prepare`.
        method: who asks, for the message.

    Raises:
        InputError: there is none to pass over.
    """
    if train is None:
        raise InputError(
            f"{method} passes over the training set: hand it over as arrays or as anything with "
            "__len__ and __getitem__, not as an iterable of batches (to prepare itself: a Stream)"
        )
    blocks: Iterable[tuple[Batch, Any]] = _Streamed(train)
    source = train.source
    if isinstance(source, ArraySource) and source.in_memory and source.nbytes <= _HELD_BYTES:
        blocks = [(jax.tree.map(jnp.asarray, batch), jnp.asarray(mask)) for batch, mask in blocks]
    return TrainingRows(blocks, len(source), len(train))


def only_shapes(train: Stream | None, *trees: PyTree) -> bool:
    """Whether a traced `prepare` is asked without a training set: for shapes and dtypes alone.

    That is how `attribute` plans its store. What is computed then is NaN, and never a score.
    """
    return train is None and is_traced(trees)


def is_traced(tree: PyTree) -> bool:
    """Whether jax is tracing any of the leaves."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def iterate(going: Callable[[Any], jax.Array], step: Callable[[Any], Any], state: Any) -> Any:
    """`while going(state): state = step(state)`, one compiled loop where the caller traces.

    Otherwise a Python loop, so that a step can read its training examples from a disk.
    """
    if is_traced(state):
        return lax.while_loop(going, step, state)
    while going(state):
        state = step(state)
    return state


def in_chunks(fn: Callable[..., PyTree], chunk: int | None, *trees: PyTree) -> PyTree:
    """Apply `fn` to `chunk` rows of the trees at a time and join what comes out.

    Args:
        fn: takes trees with a leading axis, returns a tree of arrays with the same.
        chunk: None takes all rows at once.
        *trees: arguments with a common leading axis.
    """
    count = jax.tree.leaves(trees)[0].shape[0]
    size = count if chunk is None else min(chunk, count)
    parts = [
        fn(*jax.tree.map(lambda a, s=start: a[s : s + size], trees))
        for start in range(0, count, size)
    ]
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def check_chunk(chunk: int | None, name: str) -> None:
    """Refuse a chunk that is not positive."""
    if chunk is not None and (chunk < 1 or chunk != np.floor(chunk)):
        raise InputError(f"{name} must be a whole number of at least 1 or None, not {chunk}")
