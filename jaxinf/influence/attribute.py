"""The one verb: queries and a training set in, scores out."""

import os
import warnings
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxinf.engine import ScoreStore, Stream, as_source, data_mesh, score_rows
from jaxinf.engine.fingerprint import fingerprint, program_fingerprint
from jaxinf.engine.mesh import Parallel, num_shards
from jaxinf.engine.progress import announce
from jaxinf.engine.sources import IterableSource, source_fingerprint
from jaxinf.errors import InputError, check_dtypes, check_finite
from jaxinf.influence.attribution import Attribution, Plan
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.checks import (
    check_alike,
    check_losses,
    check_queries,
    take_probe,
    warn_unresolved,
)
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.typing import Batch, Params

_BATCHES_PER_CHUNK = 8


def attribute(
    attributor: Attributor,
    params: Params,
    queries: Batch | QueryGroups,
    train: Any,
    *,
    batch_size: int = 256,
    mesh: Mesh | None = None,
    top_k: int | None = None,
    store: str | os.PathLike | None = None,
    progress: bool = True,
    chunk_size: int | None = None,
    parallel: Parallel = "shard_map",
    diagnostics: bool = True,
) -> Attribution:
    """Score every training example's influence on every query.

    Everything is checked before the work starts. Each process of a `jax.distributed` run scores
    its own share of the chunks on its own devices and writes it to `store`, which it then needs;
    what other processes have not finished yet reads as NaN.

    Args:
        attributor: the method, such as `jaxinf.influence.forward_inf(loss_fn)`.
        params: what the loss is differentiated by; replicated over the mesh, or sharded over its
            other axes as it comes.
        queries: K examples: a pytree of arrays with leading axis K, built like the training
            examples; or groups of examples, from `group_queries`.
        train: N examples: a pytree of arrays with leading axis N, any object with `__len__` and
            `__getitem__`, or an iterable of batches; see `jaxinf.engine.sources`.
        batch_size: rows per step over all devices; rounded up to a multiple of their number.
        mesh: has a `data` axis; default: all devices of this process.
        top_k: keep only the k largest and the k smallest scores per query; K × N numbers are
            then never held.
        store: folder for durable scores. A killed run, called again in the same way, goes on
            where it stopped and gives the same bits; another run's store is refused.
        progress: say what the planner chose and predicts, and show a bar with rate and time left.
        chunk_size: rows that become durable together; default 8 batches.
        parallel: `"shard_map"`, or `"pmap"` for the same numbers by the older way.
        diagnostics: compute the method's diagnostics on a sample of training rows.

    Returns:
        An `Attribution`: `scores` float[K, N] in the order of `train`, or with `top_k` the
        `top_*` and `bottom_*` fields; `diagnostics` and `plan`.

    Raises:
        InputError: NaN or infinities in params, queries or train; an empty set; unequal leading
            axes; queries unlike the training examples; float64 while x64 is off; a loss that is
            not one number per example or not finite (a label out of range, say); a `top_k`
            larger than N; a store of another run.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> train = {"x": np.eye(2, dtype=np.float32), "y": np.array([1.0, -1.0], np.float32)}
        >>> query = {"x": np.ones((1, 2), np.float32), "y": np.ones(1, np.float32)}
        >>> attribute(grad_dot(loss), jnp.zeros(2), query, train, progress=False).scores.tolist()
        [[4.0, -4.0]]
    """
    source = as_source(train)
    check_dtypes(params, "params")
    check_finite(params, "params")
    if attributor.loss_fn is not None and not jax.tree.leaves(params):
        raise InputError("params holds no arrays: pass the pytree that the loss differentiates")
    check_queries(queries)
    groups = as_groups(queries)
    probe, probe_rows, source = take_probe(source)
    check_alike(groups, probe)
    length = None if isinstance(source, IterableSource) else len(source)
    mesh = data_mesh() if mesh is None else mesh
    process = (jax.process_index(), jax.process_count())
    _check_settings(batch_size, top_k, length, store, process[1])
    batch_size = _round_up(min(batch_size, length or batch_size), num_shards(mesh))
    chunk_size = _round_up(chunk_size or _BATCHES_PER_CHUNK * batch_size, batch_size)
    flops = None
    if attributor.loss_fn is not None:
        flops = check_losses(attributor.loss_fn, params, groups, probe, probe_rows)

    def rows_of_scores(params: Params, groups: QueryGroups, batch: Batch) -> jax.Array:
        return attributor.score(attributor.prepare(params, groups, None), batch)

    dtype = jax.eval_shape(rows_of_scores, params, groups, probe).dtype
    opened = None
    if store is not None:
        spec = {
            "format": 1,
            "method": attributor.name,
            "program": program_fingerprint(rows_of_scores, params, groups, probe),
            "params": fingerprint(params),
            "queries": fingerprint(groups),
            "sampled_rows": fingerprint(probe),
            "train": source_fingerprint(source),
            "batch_size": batch_size,
            "chunk_size": chunk_size,
            "num_queries": groups.size,
            "num_examples": length,
            "dtype": str(dtype),
            "top_k": top_k,
            "num_processes": process[1],
        }
        opened = ScoreStore(store, spec)

    stream = None if isinstance(source, IterableSource) else Stream(source, batch_size)
    state = attributor.prepare(params, groups, stream)
    found: dict[str, np.ndarray] = {}
    if diagnostics and attributor.diagnose is not None:
        figures = jax.jit(attributor.diagnose)(state, probe, jax.random.key(0))
        found = {name: np.asarray(figure) for name, figure in figures.items()}
        warn_unresolved(found)
    scoring = _planned(attributor, state, probe, batch_size // num_shards(mesh))
    if scoring is not None:
        announce(_choice(scoring, length, num_shards(mesh)), enabled=progress)
    done = score_rows(
        attributor.score,
        state,
        source,
        num_queries=groups.size,
        batch_size=batch_size,
        chunk_size=chunk_size,
        mesh=mesh,
        via=parallel,
        dtype=dtype,
        top_k=top_k,
        store=opened,
        progress=progress,
        process=process,
    )
    if done.num_nonfinite:
        warnings.warn(f"{done.num_nonfinite} scores are NaN or infinite", stacklevel=2)
    passes = attributor.forward_passes and attributor.forward_passes(groups.size)
    per_example = passes * flops / attributor.num_models if passes and flops else None
    if scoring is not None:
        passes, per_example = scoring.chosen.forward_passes, scoring.chosen.flops
    plan = Plan(
        method=attributor.name,
        num_queries=groups.size,
        num_examples=length,
        batch_size=batch_size,
        num_devices=num_shards(mesh),
        parallel=parallel,
        forward_passes=passes,
        flops_per_example=per_example,
        temp_bytes=done.temp_bytes,
        compile_seconds=done.compile_seconds,
        run_seconds=done.run_seconds,
        rows_scored=done.num_rows,
        scoring=scoring,
    )
    top, bottom = done.top, done.bottom
    return Attribution(
        scores=done.scores,
        top_scores=None if top is None else np.asarray(top.values),
        top_indices=None if top is None else np.asarray(top.rows),
        bottom_scores=None if bottom is None else np.asarray(bottom.values),
        bottom_indices=None if bottom is None else np.asarray(bottom.rows),
        diagnostics=found,
        plan=plan,
    )


def _choice(scoring: ScoringPlan, length: int | None, num_devices: int) -> str:
    """The planner's choice, and what it makes of the whole set."""
    seconds = (length or 0) * scoring.chosen.seconds / num_devices
    whole = "" if not seconds > 0 else f"; about {seconds:.2g} s for {length:,} examples"
    return scoring.choice + whole


def _planned(attributor: Attributor, state: Any, probe: Batch, rows: int) -> ScoringPlan | None:
    if attributor.plan is None:
        return None
    held = jax.eval_shape(lambda batch: batch, probe)  # in the dtypes that the device has
    local = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), held)
    return attributor.plan(state, local)


def _check_settings(
    batch_size: int, top_k: int | None, length: int | None, store: Any, num_processes: int
) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if top_k is not None and (top_k < 1 or (length is not None and top_k > length)):
        raise InputError(f"top_k is {top_k}, but it must lie in 1 to {length or 'N'} (examples)")
    if num_processes > 1 and store is None:
        raise InputError("a run over several processes needs store=, where their parts meet")


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
