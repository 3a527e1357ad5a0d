"""One pure function over many models: so many at once by vmap, split over the mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxinf.engine.mesh import data_mesh, data_parallel, num_shards, replicate, split_rows
from jaxinf.engine.progress import track_rows
from jaxinf.errors import InputError
from jaxinf.typing import PyTree

OneModel = Callable[[PyTree, PyTree], PyTree]


def map_models(
    fn: OneModel,
    state: PyTree,
    models: PyTree,
    *,
    at_once: int,
    mesh: Mesh | None = None,
    description: str,
    progress: bool,
) -> PyTree:
    """Apply `fn(state, model)` to every row of `models`; results come to the host.

    Args:
        fn: pure; it must be one object from call to call for its compiled form to be found.
        state: what all models share; replicated.
        models: pytree of host arrays with leading axis R, one row per model.
        at_once: models vmapped together on each device.
        mesh: has a `data` axis; default: one device.
        description: what the progress bar says.
        progress: show it.

    Returns:
        Pytree of numpy arrays with leading axis R.

    Example:
        >>> rows = np.arange(3, dtype=np.float32)
        >>> map_models(jax.numpy.multiply, np.float32(2), rows, at_once=2, description="",
        ...     progress=False)
        array([0., 2., 4.], dtype=float32)
    """
    mesh = one_device() if mesh is None else mesh
    count = jax.tree.leaves(models)[0].shape[0]
    shards = num_shards(mesh)
    # equal chunks, so that one program serves all of them
    num_chunks = -(-count // (min(at_once, -(-count // shards)) * shards))
    size = -(-count // (num_chunks * shards)) * shards
    state = replicate(state, mesh)
    done = []
    with track_rows(description, count, enabled=progress, unit="models") as advance:
        for first in range(0, count, size):
            rows = np.arange(first, min(first + size, count))
            padded = np.pad(rows, (0, size - len(rows)), mode="edge")
            chunk = jax.tree.map(lambda a, rows=padded: a[rows], models)
            done.append(run_chunk(fn, state, chunk, mesh, len(rows)))
            advance(len(rows))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def run_chunk(fn: OneModel, state: PyTree, chunk: PyTree, mesh: Mesh, count: int) -> PyTree:
    """Apply `fn` to a chunk whose rows fill the mesh evenly; keep the first `count` results."""
    out = _vmapped(fn, mesh)(state, split_rows(chunk, mesh))
    merge = lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[:count]
    return jax.tree.map(merge, out)


def one_device() -> Mesh:
    """A mesh of the first device alone."""
    return data_mesh(jax.local_devices()[:1])


def check_at_once(at_once: Any) -> None:
    """Refuse a number of models at once below 1.

    Raises:
        InputError: naming it.
    """
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise InputError(f"models_at_once is {at_once!r}: a whole number, at least 1")


@functools.lru_cache(maxsize=64)
def _vmapped(fn: OneModel, mesh: Mesh) -> Any:
    return data_parallel(lambda state, rows: jax.vmap(fn, (None, 0))(state, rows), mesh)
