"""Rows in, rows of scores out: sources, batches, mesh, top-k, store, progress.

The engine knows nothing of influence, value or membership. It folds one pure function
`score(state, batch) -> float[K, B]` over a source of rows.
"""

from jaxinf.engine.batching import Block, Stream, read_blocks, rebatch
from jaxinf.engine.fingerprint import fingerprint
from jaxinf.engine.mesh import data_mesh, data_parallel, merge_shards, replicate, split_rows
from jaxinf.engine.prefetch import prefetch
from jaxinf.engine.progress import track_rows
from jaxinf.engine.run import RowScores, score_rows
from jaxinf.engine.sources import Source, as_source
from jaxinf.engine.store import ScoreStore
from jaxinf.engine.topk import TopK, empty_topk, merge_topk, update_topk

__all__ = [
    "Block",
    "RowScores",
    "ScoreStore",
    "Source",
    "Stream",
    "TopK",
    "as_source",
    "data_mesh",
    "data_parallel",
    "empty_topk",
    "fingerprint",
    "merge_shards",
    "merge_topk",
    "prefetch",
    "read_blocks",
    "rebatch",
    "replicate",
    "score_rows",
    "split_rows",
    "track_rows",
    "update_topk",
]
