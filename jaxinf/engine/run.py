"""A scoring run: fold one pure function over the rows of a source, chunk by chunk.

    source ──► padded blocks ──► devices ──► score ──► chunks (durable) or running top-k

Each process of a multi-process run scores its own share of the chunks on its own devices, with
no collective and no barrier; the parts meet in the store.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxinf.engine.batching import Block, read_blocks, rebatch
from jaxinf.engine.mesh import (
    Parallel,
    data_parallel,
    merge_shards,
    num_shards,
    replicate,
    split_rows,
)
from jaxinf.engine.prefetch import prefetch
from jaxinf.engine.progress import track_rows
from jaxinf.engine.sources import IterableSource, Source
from jaxinf.engine.store import ScoreStore
from jaxinf.engine.topk import TopK, empty_topk, merge_topk, update_topk
from jaxinf.typing import PyTree

# Compiled steps are kept, so that attributing query after query compiles once.
_CACHED = 32
# Enough to keep the devices busy while the host loads and fetches; more only costs memory.
_IN_FLIGHT = 2

ScoreFn = Callable[[PyTree, PyTree], jax.Array]


@dataclass(frozen=True)
class RowScores:
    """What a run leaves: all scores, or the top and bottom k, and what it cost.

    `num_rows` counts the rows this process scored now (not those resumed); `temp_bytes` is the
    scratch memory per device that the compiler reserved.
    """

    scores: np.ndarray | None
    top: TopK | None
    bottom: TopK | None
    num_rows: int
    num_nonfinite: int
    compile_seconds: float
    run_seconds: float
    temp_bytes: int | None


def score_rows(
    score: ScoreFn,
    state: PyTree,
    source: Source | IterableSource,
    *,
    num_queries: int,
    batch_size: int,
    chunk_size: int,
    mesh: Mesh,
    via: Parallel = "shard_map",
    dtype: Any = jnp.float32,
    top_k: int | None = None,
    store: ScoreStore | None = None,
    progress: bool = True,
    process: tuple[int, int] = (0, 1),
) -> RowScores:
    """Score every row of a source against K queries.

    Args:
        score: `score(state, batch) -> float[K, B]`, pure.
        state: replicated to every device of the mesh.
        source: the rows.
        num_queries: K.
        batch_size: rows per step over all devices; a multiple of the `data` axis.
        chunk_size: rows per durable chunk; a multiple of `batch_size`.
        mesh: has a `data` axis.
        via: `"shard_map"` or `"pmap"`.
        dtype: of the scores.
        top_k: keep only the k largest and the k smallest scores per query.
        store: where finished chunks go; what it already holds is not scored again.
        progress: show a bar.
        process: (index, count): this process scores chunks index, index + count, ...

    Returns:
        The scores, in row order, or the top and bottom k.

    Example:
        >>> from jaxinf.engine import as_source, data_mesh
        >>> out = score_rows(lambda w, x: w[:, None] * x[None, :], jnp.array([1.0, -1.0]),
        ...     as_source(np.arange(3, dtype=np.float32)), num_queries=2, batch_size=2,
        ...     chunk_size=2, mesh=data_mesh(jax.local_devices()[:1]), progress=False)
        >>> out.scores.tolist()
        [[0.0, 1.0, 2.0], [-0.0, -1.0, -2.0]]
    """
    run = _TopKRun if top_k is not None else _FullRun
    fold = run(score, num_queries, top_k, dtype, mesh, via, store, process, source)
    state = replicate(state, mesh)
    blocks = _load(source, batch_size, chunk_size, mesh, process, fold.finished)
    total = None if isinstance(source, IterableSource) else len(source)
    compiled, compile_seconds, temp_bytes, scored = None, 0.0, None, 0
    unfinished: int | None = None
    began = time.perf_counter()
    with track_rows("scoring", total, enabled=progress) as advance:
        if total is not None:
            advance(total - _rows_to_do(total, chunk_size, process, fold.finished))
        for block, device_rows, row_numbers in blocks:
            args = fold.arguments(state, device_rows, row_numbers)
            if compiled is None:
                compiled, compile_seconds, temp_bytes = _compile(fold.step, args)
            fold.take(block, compiled(*args))
            scored += block.count
            advance(block.count)
            unfinished = block.start - block.start % chunk_size
            if block.start + block.count == unfinished + chunk_size:
                fold.finish_chunk(unfinished)
                unfinished = None
        if unfinished is not None:
            fold.finish_chunk(unfinished)
    scores, top, bottom = fold.result(total)
    return RowScores(
        scores=scores,
        top=top,
        bottom=bottom,
        num_rows=scored,
        num_nonfinite=fold.num_nonfinite,
        compile_seconds=compile_seconds,
        run_seconds=time.perf_counter() - began - compile_seconds,
        temp_bytes=temp_bytes,
    )


@functools.lru_cache(maxsize=_CACHED)
def _full_step(score: ScoreFn, mesh: Mesh, via: Parallel) -> Any:
    return data_parallel(score, mesh, via=via)


@functools.lru_cache(maxsize=_CACHED)
def _topk_step(score: ScoreFn, mesh: Mesh, via: Parallel) -> Any:
    def step(state: PyTree, kept: tuple[TopK, TopK], batch: PyTree, numbers: jax.Array) -> Any:
        scores = score(state, batch)
        top, bottom = kept
        bad = jnp.sum(~jnp.isfinite(scores) & (numbers >= 0)[None, :], dtype=jnp.int32)
        return (update_topk(top, scores, numbers), update_topk(bottom, -scores, numbers)), bad

    return data_parallel(step, mesh, num_row_args=3, via=via, donate=(1,))


class _FullRun:
    """Keep every score."""

    def __init__(self, score, num_queries, top_k, dtype, mesh, via, store, process, source):
        self.step = _full_step(score, mesh, via)
        self.store, self.num_nonfinite = store, 0
        self.finished = store.finished_chunks() if store else set()
        self._waiting: deque[tuple[Block, jax.Array]] = deque()
        self._parts: list[np.ndarray] = []
        self._all = None
        if store is None and not isinstance(source, IterableSource):
            self._all = np.full((num_queries, len(source)), np.nan, dtype)

    def arguments(self, state, rows, numbers):
        return state, rows

    def take(self, block, scores):
        self._waiting.append((block, scores))
        if len(self._waiting) > _IN_FLIGHT:
            self._fetch()

    def _fetch(self):
        block, scores = self._waiting.popleft()
        part = merge_shards(scores)[:, : block.count]
        self.num_nonfinite += part.size - int(np.count_nonzero(np.isfinite(part)))
        if self._all is not None:
            self._all[:, block.start : block.start + block.count] = part
        else:
            self._parts.append(part)

    def finish_chunk(self, start):
        if self.store is None:
            return
        while self._waiting:
            self._fetch()
        self.store.write_chunk(start, np.concatenate(self._parts, axis=1))
        self._parts = []

    def result(self, total):
        while self._waiting:
            self._fetch()
        if self.store is not None:
            return self.store.read_scores(), None, None
        scores = self._all if self._all is not None else np.concatenate(self._parts, axis=1)
        return scores, None, None


class _TopKRun:
    """Keep the k largest and the k smallest; every device holds its own until the end."""

    def __init__(self, score, num_queries, top_k, dtype, mesh, via, store, process, source):
        self.step = _topk_step(score, mesh, via)
        self.store, self.num_nonfinite = store, 0
        self._process, self._count = process
        self._waiting: deque[jax.Array] = deque()
        top = empty_topk(num_queries, top_k, dtype, num_shards(mesh))
        bottom = empty_topk(num_queries, top_k, dtype, num_shards(mesh))
        saved = store.read_topk(self._process) if store else None
        self._chunks = 0
        if saved:
            # what is resumed becomes the first device's
            self._chunks = saved[0]
            for kept, held in ((top, saved[1]), (bottom, saved[2])):
                kept.values[0], kept.rows[0] = held.values, held.rows
        self.finished = {self._process + i * self._count for i in range(self._chunks)}
        self._kept = jax.tree.map(
            lambda a: split_rows(a.reshape(-1, *a.shape[2:]), mesh), (top, bottom)
        )

    def arguments(self, state, rows, numbers):
        return state, self._kept, rows, numbers

    def take(self, block, outputs):
        self._kept, bad = outputs
        self._waiting.append(bad)
        if len(self._waiting) > _IN_FLIGHT:
            self._fetch()

    def _fetch(self):
        self.num_nonfinite += int(np.sum(np.asarray(self._waiting.popleft())))

    def finish_chunk(self, start):
        self._chunks += 1
        if self.store is not None:
            self.store.write_topk(self._process, self._chunks, *map(merge_topk, self._kept))

    def result(self, total):
        while self._waiting:
            self._fetch()
        if self.store is not None:
            top, bottom = self.store.merged_topk()
        else:
            top, bottom = map(merge_topk, self._kept)
        return None, top, TopK(-bottom.values, bottom.rows)


def _load(
    source: Source | IterableSource,
    batch_size: int,
    chunk_size: int,
    mesh: Mesh,
    process: tuple[int, int],
    finished: set[int],
) -> Iterator[tuple[Block, PyTree, jax.Array]]:
    """This process's unfinished blocks, already on the devices."""

    def to_do(chunk: int) -> bool:
        return chunk % process[1] == process[0] and chunk not in finished

    def blocks() -> Iterator[Block]:
        if isinstance(source, IterableSource):
            for block in rebatch(source, batch_size):
                if to_do(block.start // chunk_size):
                    yield block
            return
        for chunk, start in enumerate(range(0, len(source), chunk_size)):
            if to_do(chunk):
                yield from read_blocks(source, batch_size, start, start + chunk_size)

    def placed() -> Iterator[tuple[Block, PyTree, jax.Array]]:
        for block in blocks():
            numbers = np.arange(batch_size, dtype=np.int32)
            numbers = np.where(numbers < block.count, numbers + block.start, -1).astype(np.int32)
            yield block, split_rows(block.batch, mesh), split_rows(numbers, mesh)

    return prefetch(placed(), _IN_FLIGHT)


def _rows_to_do(total: int, chunk_size: int, process: tuple[int, int], finished: set[int]) -> int:
    return sum(
        min(start + chunk_size, total) - start
        for chunk, start in enumerate(range(0, total, chunk_size))
        if chunk % process[1] == process[0] and chunk not in finished
    )


def _compile(step: Any, args: tuple[PyTree, ...]) -> tuple[Any, float, int | None]:
    began = time.perf_counter()
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for a in leaves)
    compiled = _compile_for(step, structure, shapes)
    seconds = time.perf_counter() - began
    return compiled, seconds, getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)


@functools.lru_cache(maxsize=_CACHED)
def _compile_for(step: Any, structure: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
    return step.lower(*jax.tree.unflatten(structure, shapes)).compile()
