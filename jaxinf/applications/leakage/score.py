"""Scores of a stream of queries, a chunk at a time, resumable."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinf.engine import as_source
from jaxinf.engine.sources import IterableSource
from jaxinf.errors import InputError, check_count
from jaxinf.influence import Attributor, attribute
from jaxinf.typing import Params


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
        queries: K examples: arrays with a leading axis, or a source of them.
        train: N examples, as in `jaxinf.attribute`, but no iterable of batches where there is
            more than one chunk.
        query_chunk: how many queries are scored together.
        store: folder for durable scores, one store per chunk. A killed run, called again in the
            same way, goes on where it stopped.
        **options: of `jaxinf.attribute`: `batch_size`, `mesh`, `progress`, `chunk_size`.

    Yields:
        float[k, N] for each chunk in turn, for `find_leaks` or `leak_statistics`.

    Raises:
        InputError: as `jaxinf.attribute`; queries that cannot be read by rows.

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
        raise InputError("queries is an iterable of batches: give arrays or a source with rows")
    return _chunks(attributor, params, source, train, query_chunk, store, options)


def _chunks(
    attributor: Attributor,
    params: Params,
    queries: Any,
    train: Any,
    query_chunk: int,
    store: str | os.PathLike | None,
    options: dict[str, Any],
) -> Iterator[np.ndarray]:
    for start in range(0, len(queries), query_chunk):
        rows = queries.read(start, min(start + query_chunk, len(queries)))
        folder = None if store is None else Path(store) / f"queries-{start:08d}"
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
