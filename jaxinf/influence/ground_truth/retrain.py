"""Train one model per subset of the training set, as many at once as memory admits."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Int
from numpy.typing import ArrayLike

from jaxinf.engine.fingerprint import fingerprint, program_fingerprint
from jaxinf.engine.mesh import num_shards, replicate
from jaxinf.engine.progress import track_rows
from jaxinf.influence.ground_truth.many_models import check_at_once, one_device, run_chunk
from jaxinf.influence.ground_truth.subsets import check_subsets, class_labels
from jaxinf.models.checkpoints import open_run
from jaxinf.models.storage import load_variables, save_variables
from jaxinf.typing import PyTree

TrainFn: TypeAlias = Callable[[jax.Array, Int[jax.Array, " n"]], PyTree]
"""`train_fn(key, rows) -> outputs`: train on the examples numbered by `rows`; return arrays."""


def retrain_on_subsets(
    train_fn: TrainFn,
    subsets: ArrayLike,
    *,
    key: jax.Array,
    labels: ArrayLike | None = None,
    allow_missing_classes: bool = False,
    models_at_once: int | None = None,
    memory_bytes: int | None = None,
    traced: bool = True,
    mesh: Mesh | None = None,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> PyTree:
    """Train a model on every subset and return what `train_fn` returns, stacked.

    Model s gets the key `fold_in(key, s)`, so its result does not depend on which others are
    trained with it, but for the order in which sums are rounded. Subsets of one size share one
    compiled program; each further size compiles another.

    Args:
        train_fn: `train_fn(key, rows) -> outputs`; `rows` int32[n] are the subset's examples,
            ascending, and outputs any pytree of arrays: parameters, or the figures that are
            needed of the model, which take less memory. It is vmapped, so it must be pure; see
            `sgd_trainer`. A `jax.tree_util.Partial` that carries its data is compiled without
            baking them in.
        subsets: bool[S, N], as from `draw_subsets`.
        key: random key.
        labels: int[N]; a subset that lacks one of the classes is refused. By default `data["y"]`
            of an `sgd_trainer`, or of any data that a `train_fn` carries as a `Partial`, where it
            is N whole numbers of at most N / 10 and 1000 values; nothing is checked otherwise.
        allow_missing_classes: train on such subsets all the same.
        models_at_once: models vmapped together on each device; by default as many as fit in
            `memory_bytes` by the compiler's count, which compiles one model by itself first.
        memory_bytes: for each device; by default half of what an accelerator has, and 1 GiB on a
            CPU.
        traced: False calls `train_fn` as it is, once per subset: for training that steps from
            Python, such as `jaxinf.models.fit`, and for convolutions on a CPU, which are slow
            when they are vmapped over weights or run inside a compiled loop.
        mesh: splits the models over its `data` axis; default: one device.
        store: folder where every finished chunk of models becomes durable. A killed run, called
            again in the same way, goes on where it stopped; another run's folder is refused. With
            `traced=False` tuples come back from it as lists, and it is the caller's to choose
            another folder for another `train_fn`.
        progress: show a bar with the rate and the time left.

    Returns:
        `train_fn`'s pytree on the host, every leaf with a leading axis S.

    Raises:
        InputError: for subsets or labels that cannot be used, a subset that lacks a class, or a
            store of another run.

    Example:
        >>> values = jax.numpy.array([1.0, 2.0, 4.0])
        >>> total = lambda key, rows: values[rows].sum()
        >>> subsets = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
        >>> retrain_on_subsets(total, subsets, key=jax.random.key(0), progress=False)
        array([3., 6., 7.], dtype=float32)
    """
    if labels is None and not allow_missing_classes and np.ndim(subsets) == 2:
        labels = _carried_labels(train_fn, np.shape(subsets)[1])
    masks = check_subsets(subsets, labels, allow_missing_classes=allow_missing_classes)
    carried = train_fn if isinstance(train_fn, Partial) else Partial(train_fn)
    mesh = one_device() if mesh is None else mesh
    state = carried, key
    model = jax.tree.map(lambda a: a[0], _models(masks, np.arange(1)))
    if models_at_once is not None:
        check_at_once(models_at_once)
    elif traced:
        models_at_once = _fitting(state, model, mesh, memory_bytes, len(masks))
    together = (models_at_once or 1) * num_shards(mesh)
    chunks = list(_chunks(masks.sum(axis=1), together, num_shards(mesh)))
    folder = None if store is None else _open(store, state, model, masks, together, traced)
    outputs = jax.eval_shape(_train_one, state, model) if traced else None
    if traced:
        state = replicate(state, mesh)

    def train(ids: np.ndarray, width: int) -> PyTree:
        if traced:
            padded = np.pad(ids, (0, width - len(ids)), mode="edge")
            return run_chunk(_train_one, state, _models(masks, padded), mesh, len(ids))
        made = [carried(jax.random.fold_in(key, s), np.flatnonzero(masks[s])) for s in ids]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(a) for a in leaves]), *made)

    parts = []
    with track_rows("retraining", len(masks), enabled=progress, unit="models") as advance:
        for number, (ids, width) in enumerate(chunks):
            if folder is None:
                parts.append(train(ids, width))
            else:
                parts.append(_durable(folder, number, outputs, len(ids), train, ids, width))
            advance(len(ids))
    order = np.argsort(np.concatenate([ids for ids, _ in chunks]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *parts)


def _carried_labels(train_fn: Any, count: int) -> np.ndarray | None:
    """Classes in the data of a trainer, or of one that it is made of, compiled or not."""
    made = getattr(train_fn, "__wrapped__", train_fn)
    if not isinstance(made, functools.partial):
        return None
    found = (
        _carried_labels(part, count) if callable(part) else class_labels(part, count)
        for part in (*made.args, *made.keywords.values())
    )
    return next((labels for labels in found if labels is not None), None)


def _train_one(state: Any, model: tuple[jax.Array, jax.Array]) -> PyTree:
    (train_fn, key), (subset, rows) = state, model
    return train_fn(jax.random.fold_in(key, subset), rows)


def _models(masks: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers int32[R] and examples int32[R, n] of subsets of one size."""
    rows = np.nonzero(masks[ids])[1].reshape(len(ids), -1)
    return ids.astype(np.int32), rows.astype(np.int32)


def _chunks(sizes: np.ndarray, most: int, shards: int) -> Iterator[tuple[np.ndarray, int]]:
    """Subsets of one size that are trained together, and the width that all such chunks have."""
    for size in np.unique(sizes):
        ids = np.flatnonzero(sizes == size)
        step = -(-len(ids) // -(-len(ids) // most))
        width = -(-step // shards) * shards
        for start in range(0, len(ids), width):
            yield ids[start : start + width], width


def _fitting(state: Any, model: PyTree, mesh: Mesh, memory_bytes: int | None, count: int) -> int:
    """How many models of this kind fit on one device together."""
    if memory_bytes is None:
        stats = mesh.devices.flat[0].memory_stats() or {}
        memory_bytes = int(stats.get("bytes_limit", 2**31)) // 2
    used = jax.jit(_train_one).lower(state, model).compile().memory_analysis()
    each = 0 if used is None else used.temp_size_in_bytes + used.output_size_in_bytes
    share = -(-count // num_shards(mesh))
    return max(1, min(share, memory_bytes // max(each, 1)))


def _open(
    store: str | os.PathLike,
    state: Any,
    model: PyTree,
    masks: np.ndarray,
    together: int,
    traced: bool,
) -> Path:
    identity: dict[str, str | int] = {
        "train_fn": program_fingerprint(_train_one, state, model) if traced else "not traced",
        "data_or_key": fingerprint(state),
        "subsets": fingerprint(masks),
        "models_at_once": together,
    }
    return open_run(os.fspath(store), identity)


def _durable(
    folder: Path,
    number: int,
    outputs: PyTree | None,
    count: int,
    train: Callable[[np.ndarray, int], PyTree],
    *chunk: Any,
) -> PyTree:
    """Train a chunk, unless an earlier run of it left its results."""
    path = folder / f"chunk_{number:06d}"
    # it is written under another name first: a folder of this name is whole
    if not path.exists():
        save_variables(path, {"outputs": train(*chunk)})
    stacked = lambda a: jax.ShapeDtypeStruct((count, *a.shape), a.dtype)
    like = None if outputs is None else {"outputs": jax.tree.map(stacked, outputs)}
    return load_variables(path, like)["outputs"]
