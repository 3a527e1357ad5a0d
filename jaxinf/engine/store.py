"""Durable scores: what is finished stays, what was killed resumes, another run is refused.

A store is a folder:

    spec.json        what run it belongs to
    scores/          float32[K, N], a zarr version 3 array, one file per finished chunk
    topk-P.npz       with `top_k`: the running top and bottom k of process P

Every file appears whole or not at all (written beside, then renamed). Any zarr reader opens
`scores/`; entries of chunks not yet finished read as NaN.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.engine.topk import TopK, merge_topk
from jaxinf.errors import InputError

# what a file is called until it is whole
_PARTIAL = ".partial"


class ScoreStore:
    """The scores of one run, in a folder."""

    def __init__(self, path: str | os.PathLike, spec: dict[str, Any] | None = None):
        """Open the store of a run, or create it.

        Args:
            path: the folder.
            spec: JSON-able identity of the run, with `num_queries`, `num_examples` (None when
                unknown), `chunk_size`, `dtype` and `top_k`. None opens what is there.

        Raises:
            InputError: the folder belongs to another run (saying what differs), or is no store.
        """
        self.path = Path(path)
        file = self.path / "spec.json"
        if not file.exists():
            if spec is None:
                raise InputError(f"{self.path} holds no scores: there is no spec.json in it")
            # another process of the same run may be creating the store at this moment
            if self._holds_other_files() and not file.exists():
                raise InputError(
                    f"{self.path} is not empty and is no score store: choose an empty or a new "
                    "folder"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                _write_whole(file, json.dumps(spec, indent=2, sort_keys=True).encode())
        self.spec: dict[str, Any] = json.loads(file.read_text())
        if spec is not None and self.spec != spec:
            _refuse(self.path, self.spec, spec)

    def _holds_other_files(self) -> bool:
        if not self.path.exists():
            return False
        return any(not entry.name.endswith(_PARTIAL) for entry in self.path.iterdir())

    def finished_chunks(self) -> set[int]:
        """Numbers of the chunks whose scores are on disk."""
        folder = self.path / "scores" / "c" / "0"
        names = os.listdir(folder) if folder.is_dir() else []
        return {int(name) for name in names if name.isdigit()}

    def write_chunk(self, start: int, scores: np.ndarray) -> None:
        """Write scores [K, n] of the chunk whose first example is `start`."""
        array = self._open(start + scores.shape[1])
        array[:, start : start + scores.shape[1]].write(scores).result()

    def read_scores(self) -> np.ndarray:
        """All scores [K, N]; NaN where a chunk is not finished."""
        return np.asarray(self._open(0).read().result())

    def write_topk(self, process: int, chunks: int, top: TopK, bottom: TopK) -> None:
        """Save what one process holds after its first `chunks` chunks."""
        fields = {"top": top, "bottom": bottom}
        arrays: dict[str, Any] = {
            f"{side}_{name}": np.asarray(getattr(kept, name))
            for side, kept in fields.items()
            for name in TopK._fields
        }
        file = self.path / f"topk-{process}.npz"
        partial = file.with_name(f".{file.name}{_PARTIAL}")
        with partial.open("wb") as out:
            np.savez(out, chunks=np.asarray(chunks), **arrays)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)

    def read_topk(self, process: int) -> tuple[int, TopK, TopK] | None:
        """What `write_topk` saved last: chunks, top, bottom; None when nothing was."""
        file = self.path / f"topk-{process}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as saved:
            top, bottom = (
                TopK(saved[f"{side}_values"], saved[f"{side}_rows"]) for side in ("top", "bottom")
            )
            return int(saved["chunks"]), top, bottom

    def merged_topk(self) -> tuple[TopK, TopK]:
        """The top and bottom k over all processes' parts that are on disk."""
        parts = [self.read_topk(i) for i in range(int(self.spec["num_processes"]))]
        found = [part[1:] for part in parts if part is not None]
        if not found:
            raise InputError(f"{self.path} holds no top-k scores yet")
        tops, bottoms = zip(*found, strict=True)
        return _merge(tops), _merge(bottoms)

    def _open(self, stop: int) -> Any:
        import tensorstore as ts

        num_queries, chunk_size = self.spec["num_queries"], self.spec["chunk_size"]
        length = self.spec["num_examples"]
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(self.path.resolve() / "scores")},
            # a chunk's file says that it is finished, whatever its scores are
            "store_data_equal_to_fill_value": True,
        }
        if not (self.path / "scores" / "zarr.json").exists():
            spec["metadata"] = {
                "shape": [num_queries, stop if length is None else length],
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [num_queries, chunk_size]},
                },
                "data_type": self.spec["dtype"],
                "fill_value": "NaN",
            }
        array = ts.open(spec, open=True, create=True).result()
        if length is None and array.shape[1] < stop:
            array = array.resize(exclusive_max=[num_queries, stop], expand_only=True).result()
        return array


def _merge(parts: tuple[TopK, ...]) -> TopK:
    return merge_topk(
        TopK(np.stack([part.values for part in parts]), np.stack([part.rows for part in parts]))
    )


def _refuse(path: Path, found: dict[str, Any], spec: dict[str, Any]) -> None:
    keys = sorted(key for key in found.keys() | spec.keys() if found.get(key) != spec.get(key))
    raise InputError(
        f"the store {path} belongs to another run: it has other {', '.join(keys)}; choose another "
        "folder, or delete this one to start over"
    )


def _write_whole(file: Path, data: bytes) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}{_PARTIAL}")
    with partial.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, file)
