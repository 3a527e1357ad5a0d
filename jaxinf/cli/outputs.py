"""Scores as files: numpy's archive or a parquet table."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.errors import require_extra
from jaxinf.influence import Attribution

_FIELDS = ("scores", "top_scores", "top_indices", "bottom_scores", "bottom_indices")


def write_scores(folder: Path, found: Attribution, file_format: str) -> Path:
    """Write an attribution to `scores.npz` or `scores.parquet`.

    npz: the fields of the `Attribution`, and `diagnostics/...`. parquet, with all scores: one row
    per training example, columns `train_index`, `query_0`, `query_1`, ...; with `top_k`: a long
    table `query`, `side` ("top" or "bottom"), `rank` (from 1), `train_index`, `score`.

    Args:
        folder: created when missing.
        found: what `attribute` returned.
        file_format: `"npz"` or `"parquet"`.

    Returns:
        The file.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"scores.{file_format}"
    if file_format == "npz":
        arrays = {name: getattr(found, name) for name in _FIELDS}
        kept = {name: values for name, values in arrays.items() if values is not None}
        diagnostics = {f"diagnostics/{name}": array for name, array in found.diagnostics.items()}
        np.savez_compressed(file, allow_pickle=False, **kept, **diagnostics)
        return file
    pyarrow = require_extra("pyarrow", "cli")
    columns = _wide(found.scores) if found.scores is not None else _long(found)
    require_extra("pyarrow.parquet", "cli").write_table(pyarrow.table(columns), file)
    return file


def _wide(scores: np.ndarray) -> dict[str, np.ndarray]:
    columns = {f"query_{i}": row for i, row in enumerate(scores)}
    return {"train_index": np.arange(scores.shape[1]), **columns}


def _long(found: Attribution) -> dict[str, Any]:
    parts = []
    for side, rows, scores in (
        ("top", found.top_indices, found.top_scores),
        ("bottom", found.bottom_indices, found.bottom_scores),
    ):
        assert rows is not None
        assert scores is not None
        query, rank = np.nonzero(rows >= 0)
        sides = np.full(len(query), side)
        parts.append((query, sides, rank + 1, rows[query, rank], scores[query, rank]))
    names = ("query", "side", "rank", "train_index", "score")
    return {
        name: np.concatenate(column)
        for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }
