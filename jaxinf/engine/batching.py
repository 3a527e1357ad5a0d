"""Fixed-size blocks of rows, so that one compiled function serves them all.

The last block is padded by repeating its last real row: real values, so nothing turns into
NaN, and one shape. Whoever reduces over rows uses the count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.engine.sources import ArraySource, IterableSource, Source
from jaxinf.errors import check_dtypes, check_examples, check_finite
from jaxinf.typing import Batch


@dataclass(frozen=True)
class Block:
    """`batch_size` rows, of which the first `count` are real; row 0 is example `start`."""

    batch: Batch
    start: int
    count: int

    @property
    def mask(self) -> np.ndarray:
        """bool[B]: which rows are real."""
        return np.arange(_leading(self.batch)) < self.count


@dataclass(frozen=True)
class Stream:
    """A source that can be passed over again and again in blocks; what `prepare` is handed."""

    source: Source
    batch_size: int

    def __iter__(self) -> Iterator[Block]:
        return read_blocks(self.source, self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)


def read_blocks(
    source: Source, batch_size: int, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Read rows `start` to `stop - 1` in padded blocks.

    Raises:
        InputError: when a row read from disk holds NaN or an infinity, naming it.

    Example:
        >>> from jaxinf.engine.sources import as_source
        >>> blocks = list(read_blocks(as_source(np.arange(5)), 2))
        >>> [(block.batch.tolist(), block.count) for block in blocks]
        [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    """
    stop = len(source) if stop is None else min(stop, len(source))
    # rows in memory were all checked before the work started
    trusted = isinstance(source, ArraySource) and source.in_memory
    for first in range(start, stop, batch_size):
        last = min(first + batch_size, stop)
        rows = source.read(first, last)
        if not trusted:
            check_dtypes(rows, "train")
            check_finite(rows, "train", first_row=first)
        yield Block(pad_rows(rows, batch_size), first, last - first)


def rebatch(batches: IterableSource, batch_size: int) -> Iterator[Block]:
    """Turn batches of any size into padded blocks of `batch_size`, in order.

    Example:
        >>> batches = IterableSource([np.arange(3), np.arange(3, 5)])
        >>> [(block.batch.tolist(), block.count) for block in rebatch(batches, 2)]
        [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    """
    first, held = 0, None
    for batch in batches:
        rows = jax.tree.map(np.asarray, batch)
        size = check_examples(rows, "a batch of train")
        seen = first + (_leading(held) if held is not None else 0)
        check_finite(rows, "train", first_row=seen)
        if held is not None:
            rows = jax.tree.map(lambda a, b: np.concatenate([a, b]), held, rows)
            size = _leading(rows)
        full = size - size % batch_size
        for offset in range(0, full, batch_size):
            end = offset + batch_size
            part = jax.tree.map(lambda a, lo=offset, hi=end: a[lo:hi], rows)
            yield Block(part, first + offset, batch_size)
        first += full
        held = jax.tree.map(lambda a, lo=full: a[lo:], rows) if full < size else None
    if held is not None:
        yield Block(pad_rows(held, batch_size), first, _leading(held))


def pad_rows(rows: Batch, size: int) -> Batch:
    """Repeat the last row until there are `size` rows."""
    missing = size - _leading(rows)
    if missing <= 0:
        return rows
    return jax.tree.map(lambda a: _pad(a, missing), rows)


def _pad(array: Any, missing: int) -> Any:
    xp = jnp if isinstance(array, jax.Array) else np
    return xp.concatenate([array, xp.repeat(array[-1:], missing, axis=0)])


def _leading(rows: Batch) -> int:
    return jax.tree.leaves(rows)[0].shape[0]
