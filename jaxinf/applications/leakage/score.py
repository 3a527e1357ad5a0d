"""Scores of a stream of queries, a chunk at a time, resumable."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinf.engine import as_source
from jaxinf.engine.sources import IterableSource
from jaxinf.errors import InputError, check_count
from jaxinf.influence import Attributor, attribute
from jaxinf.typing import Batch, Params


def score_queries(
    attributor: Attributor,
    params: Params,
    queries: Any,
    train: Any,
    *,
    query_chunk: int = 256,
    store: str | os.PathLike | None = None,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Score queries against the training set, some at a time: K × N numbers are never held.

    Args:
        attributor: any, such as `representation_similarity`, `signature_match` or `grad_cos`.
        params: as in `jaxinf.attribute`.
        queries: K examples: arrays with a leading axis, a source of them, or an iterable of
            batches of any sizes, which is read once and as far as chunks are asked for.
        train: N examples, as in `jaxinf.attribute`, but no iterable of batches where there is
            more than one chunk.
        query_chunk: how many queries are scored together.
        store: folder for durable scores, one store per chunk. A killed run, called again in the
            same way, goes on where it stopped.
        **options: of `jaxinf.attribute`: `batch_size`, `mesh`, `progress`, `chunk_size`.

    Yields:
        float[k, N] for each chunk in turn, for `find_leaks` or `leak_statistics`.

    Raises:
        InputError: as `jaxinf.attribute`; an iterable that ends without a query.

    Example:
        >>> from jaxinf.influence import representation_similarity
        >>> pixels = representation_similarity(lambda _, x: x, metric="euclidean")
        >>> x = np.eye(4, dtype=np.float32)
        >>> chunks = score_queries(pixels, (), x[:3], x, query_chunk=2, progress=False)
        >>> [chunk.argmax(axis=1).tolist() for chunk in chunks]
        [[0, 1], [2]]
    """
    check_count(query_chunk, "query_chunk")
    source = as_source(queries, "queries")
    if isinstance(source, IterableSource):
        chunks = _regrouped(source, query_chunk)
    else:
        chunks = (
            source.read(start, min(start + query_chunk, len(source)))
            for start in range(0, len(source), query_chunk)
        )
    return _scored(attributor, params, chunks, train, query_chunk, store, options)


def _regrouped(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same rows, `size` at a time: every chunk but the last has one shape."""
    held: Batch | None = None
    for batch in batches:
        batch = jax.tree.map(np.asarray, batch)
        held = batch if held is None else jax.tree.map(_joined, held, batch)
        while _length(held) > size:
            yield jax.tree.map(lambda a: a[:size], held)
            held = jax.tree.map(lambda a: a[size:], held)
    if held is None or not _length(held):
        raise InputError("queries: the iterable of batches ended without a query")
    yield held


def _joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, b])


def _length(batch: Batch) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _scored(
    attributor: Attributor,
    params: Params,
    chunks: Iterable[Batch],
    train: Any,
    query_chunk: int,
    store: str | os.PathLike | None,
    options: dict[str, Any],
) -> Iterator[np.ndarray]:
    for number, rows in enumerate(chunks):
        folder = None if store is None else Path(store) / f"queries-{number * query_chunk:08d}"
        found = attribute(
            attributor,
            params,
            jax.tree.map(np.asarray, rows),
            train,
            store=folder,
            diagnostics=False,
            **options,
        )
        assert found.scores is not None
        yield found.scores
