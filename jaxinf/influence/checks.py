"""What is checked before any scoring starts: each refusal is one line."""

import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxinf.adapters import check_loss_shape, check_per_example
from jaxinf.engine.batching import pad_rows
from jaxinf.engine.sources import ArraySource, IterableSource, Source, check_rows, sample_rows
from jaxinf.errors import InputError, check_examples, check_finite, leaf_name
from jaxinf.influence.queries import QueryGroups
from jaxinf.typing import Batch, Params, PerExampleLoss

_PROBE_ROWS = 64


class PrecisionWarning(UserWarning):
    """A step is too small for the dtype: its scores are mostly round-off."""


def check_queries(queries: Batch | QueryGroups) -> None:
    """Refuse queries that are empty, ragged, not finite, or of a dtype the device cannot hold."""
    examples = queries.examples if isinstance(queries, QueryGroups) else queries
    check_examples(examples, "queries")
    check_finite(examples, "queries", first_row=0)


def check_alike(queries: QueryGroups, rows: Batch) -> None:
    """Refuse queries that are not built like the training examples."""
    one_query = jax.tree.map(lambda a: a[:, 0], queries.examples)
    if jax.tree.structure(one_query) != jax.tree.structure(rows):
        raise InputError(
            f"queries are {jax.tree.structure(one_query)} but training examples are "
            f"{jax.tree.structure(rows)}: both must have one structure"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(one_query), jax.tree.leaves(rows), strict=True)
    for (path, query), row in pairs:
        if query.shape[1:] != row.shape[1:]:
            raise InputError(
                f"{leaf_name('queries', path)} has examples of shape {query.shape[1:]} but the "
                f"training examples have {row.shape[1:]}"
            )


def take_probe(source: Source | IterableSource) -> tuple[Batch, list[int], Any]:
    """A few training rows to check and to diagnose on.

    Rows are spread evenly over the source; where an integer leaf holds one number per example
    (a label, most likely), the rows with the smallest and the largest are among them.

    Returns:
        The rows, their numbers, and the source to go on with (an iterable's first batch is put
        back).
    """
    if isinstance(source, IterableSource):
        batches: Iterator[Batch] = iter(source)
        first = next(batches, None)
        if first is None:
            raise InputError("train is empty: at least one example is needed")
        first = jax.tree.map(np.asarray, first)
        count = min(check_examples(first, "a batch of train"), _PROBE_ROWS)
        check_finite(first, "train", first_row=0)
        rows = jax.tree.map(lambda a: a[:count], first)
        return rows, list(range(count)), IterableSource(chain([first], batches))
    check_rows(source)
    numbers = set(sample_rows(len(source), _PROBE_ROWS))
    if isinstance(source, ArraySource) and source.in_memory:
        for leaf in jax.tree.leaves(source.read(0, len(source))):
            if leaf.ndim == 1 and np.dtype(leaf.dtype).kind in "iu":
                numbers |= {int(leaf.argmin()), int(leaf.argmax())}
    chosen = sorted(numbers)
    read = [source.read(i, i + 1) for i in chosen]
    return (
        jax.tree.map(lambda *a: np.concatenate([np.asarray(x) for x in a]), *read),
        chosen,
        source,
    )


@jax.jit
def _losses(loss_fn: Partial, params: Params, batch: Batch) -> jax.Array:
    return loss_fn(params, batch)


def check_losses(
    loss_fn: PerExampleLoss, params: Params, queries: QueryGroups, probe: Batch, numbers: list[int]
) -> float | None:
    """Refuse a loss that is not per example, or that is not finite on the probe or the queries.

    Returns:
        Floating-point operations of one forward pass of one example as XLA counts them, where
        it does.
    """
    loss = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    size = max(2, len(numbers))
    probe = pad_rows(probe, size)
    check_loss_shape(loss, params, probe)
    _refuse_infinite(_losses(loss, params, probe), probe, "train example", numbers)
    examples = jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), queries.examples)
    per_query = queries.weights.shape[1]
    total = queries.size * per_query
    for start in range(0, total, size):
        rows = pad_rows(jax.tree.map(lambda a, s=start: a[s : s + size], examples), size)
        at = [i // per_query for i in range(start, min(start + size, total))]
        _refuse_infinite(_losses(loss, params, rows), rows, "query", at)
    check_per_example(Partial(_losses, loss), params, probe)
    cost = _losses.lower(loss, params, probe).cost_analysis() or {}
    return cost["flops"] / size if "flops" in cost else None


def _refuse_infinite(losses: jax.Array, rows: Batch, name: str, numbers: list[int]) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(losses)[: len(numbers)]))
    if not bad.size:
        return
    labels = [
        f"{leaf_name('', path) or 'value'} = {int(leaf[bad[0]])}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(rows)
        if leaf.ndim == 1 and np.dtype(leaf.dtype).kind in "iu"
    ]
    hint = f" ({', '.join(labels)}: is it a class that the model has?)" if labels else ""
    raise InputError(f"the loss of {name} {numbers[bad[0]]} is not finite{hint}")


def warn_unresolved(diagnostics: dict[str, np.ndarray]) -> None:
    """Warn of queries whose step the dtype does not resolve."""
    roundoff = diagnostics.get("roundoff")
    lost = diagnostics.get("unresolved_step")
    if roundoff is None or lost is None:
        return
    bad = np.flatnonzero((roundoff > 0.1) | (lost > 0.5))
    if bad.size:
        listed = ", ".join(map(str, bad[:5])) + (" ..." if bad.size > 5 else "")
        warnings.warn(
            f"the step of {bad.size} of {roundoff.size} queries ({listed}) is below what the dtype "
            f"resolves: round-off is up to {float(roundoff.max()):.0%} of the scores and "
            f"{float(lost.max()):.0%} of a step is lost; raise the learning rate, or use "
            "forward_inf_jvp, which takes no step",
            PrecisionWarning,
            stacklevel=3,
        )
