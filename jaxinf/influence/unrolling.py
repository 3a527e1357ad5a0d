"""k steps on the full objective without a query and with it: how far the query moves the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxinf.engine import Stream
from jaxinf.errors import InputError
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure
from jaxinf.influence.passes import (
    TrainingRows,
    check_chunk,
    in_chunks,
    only_shapes,
    training_rows,
)
from jaxinf.influence.queries import QueryGroups, group_loss
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree

Displacement = Literal["finite", "derivative"]


def make_unrolling(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    full_batch: bool,
    displacement: Displacement,
    measure: Measure,
    penalty: Any,
    query_chunk: int | None,
) -> "Unrolling":
    """Check the settings of `mirrored_unroll`, whose arguments these are.

    Raises:
        InputError: for settings that mean nothing.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    if displacement not in ("finite", "derivative"):
        raise InputError(f"displacement must be 'finite' or 'derivative', not {displacement!r}")
    check_chunk(query_chunk, "query_chunk")
    loss = scoring_loss(loss_fn, None, "highest")
    measured = scoring_loss(as_measure(loss, measure), None, "highest")
    held = None if penalty is None else Partial(penalty)
    return Unrolling(
        loss, measured, held, _Update(optimizer), steps, full_batch, displacement, query_chunk
    )


@dataclass(frozen=True)
class Unrolling:
    """The two trainings from one start, over the same batches.

    Attributes:
        loss: per-example loss of the training set.
        measured: what the query adds.
        penalty: of the objective, or None.
        update: one step of the optimiser.
        steps: k.
        full_batch: whether each step takes the whole training set.
        displacement: the difference of the two, or its limit for a small weight of the query.
        query_chunk: how many queries are trained on at once.
    """

    loss: Partial
    measured: Partial
    penalty: Partial | None
    update: "_Update"
    steps: int
    full_batch: bool
    displacement: Displacement
    query_chunk: int | None

    def __call__(
        self, params: Params, groups: QueryGroups, train: Stream | None, method: str
    ) -> tuple[Params, Params]:
        """Unroll.

        Args:
            params: where both start.
            groups: the queries.
            train: the training set; None under tracing gives shapes alone.
            method: who asks, for messages.

        Returns:
            The model without any query; and what each query adds to it, with a leading axis K.

        Raises:
            InputError: no training set to pass over, or steps that diverge.
        """
        if only_shapes(train, params, groups):
            # the optimiser's own program all the same: a store is known by it
            moved, _ = self.update(self.penalty, params, self.update.init(params), params)
            nowhere = jax.tree.map(
                lambda m: jnp.full((groups.size, *m.shape), jnp.nan, m.dtype), moved
            )
            return params, nowhere
        rows = training_rows(train, method)
        # the training without any query is the same for all: it is done once
        finite = self.displacement == "finite"
        without = self._unroll(params, rows, None) if finite else None
        weight = jnp.asarray(1 / rows.count, jnp.result_type(*jax.tree.leaves(params)))

        def displaced(group: QueryGroups) -> tuple[Params, Params]:
            if without is not None:
                moved = self._unroll(params, rows, (weight, group))
                return without, jax.tree.map(jnp.subtract, moved, without)
            of_weight = lambda weight: self._unroll(params, rows, (weight, group))
            return jax.jvp(of_weight, (jnp.zeros_like(weight),), (weight,))

        each = lambda groups: jax.vmap(displaced, out_axes=(None, 0))(groups)
        base, moved_by = _in_chunks(each, self.query_chunk, groups)
        _check_finite(moved_by, self.steps)
        return base, moved_by

    def _unroll(
        self, params: Params, rows: TrainingRows, query: tuple[jax.Array, QueryGroups] | None
    ) -> Params:
        at, state = params, self.update.init(params)
        blocks: Iterator[tuple[Batch, Any]] = chain.from_iterable(repeat(rows))
        for _ in range(self.steps):
            gradient = _mean_gradient(self.loss, at, rows if self.full_batch else next(blocks))
            if query is not None:
                pull = _pull if self.displacement == "finite" else _pull_at_zero
                gradient = jax.tree.map(jnp.add, gradient, pull(self.measured, at, *query))
            at, state = self.update(self.penalty, at, state, gradient)
        return at


class _Update:
    """One step of the optimiser on the mean loss's gradient and the penalty's, compiled."""

    def __init__(self, optimizer: optax.GradientTransformation):
        def step(penalty: Any, at: Params, state: PyTree, gradient: Params) -> tuple[Params, Any]:
            if penalty is not None:
                gradient = jax.tree.map(jnp.add, gradient, jax.grad(penalty)(at))
            updates, state = optimizer.update(gradient, state, at)
            return optax.apply_updates(at, updates), state

        self.init = optimizer.init
        self._step = jax.jit(step)

    def __call__(
        self, penalty: Any, at: Params, state: PyTree, gradient: Params
    ) -> tuple[Params, PyTree]:
        return self._step(penalty, at, state, gradient)


def _mean_gradient(
    loss: Partial, at: Params, rows: TrainingRows | tuple[Batch, jax.Array]
) -> Params:
    if isinstance(rows, TrainingRows):
        total, count = rows.total(lambda batch, mask: _gradient(loss, at, batch, mask)), rows.count
    else:
        total, count = _gradient(loss, at, *rows), jnp.sum(rows[1])
    return jax.tree.map(lambda g: g / jnp.asarray(count, g.dtype), total)


@jax.jit
def _gradient(loss: Partial, at: Params, batch: Batch, mask: jax.Array) -> Params:
    def total(at: Params) -> jax.Array:
        losses = loss(at, batch)
        return jnp.sum(losses * mask.astype(losses.dtype))

    return jax.grad(total)(at)


@jax.jit
def _pull(measured: Partial, at: Params, weight: jax.Array, group: QueryGroups) -> Params:
    """What the query adds to the gradient."""
    gradient = jax.grad(lambda at: group_loss(measured, at, group))(at)
    return jax.tree.map(lambda g: g * weight.astype(g.dtype), gradient)


@jax.custom_jvp
def _pull_at_zero(measured: Partial, at: Params, weight: jax.Array, group: QueryGroups) -> Params:
    """The same where the weight is 0: nothing, so that all queries share one training."""
    return jax.tree.map(jnp.zeros_like, at)


@_pull_at_zero.defjvp
def _pull_tangent(primals: Any, tangents: Any) -> tuple[Params, Params]:
    measured, at, _, group = primals
    return _pull_at_zero(*primals), _pull(measured, at, tangents[2], group)


def _in_chunks(fn: Any, chunk: int | None, groups: QueryGroups) -> tuple[Params, Params]:
    base: list[Params] = []

    def one(groups: QueryGroups) -> Params:
        at, moved_by = fn(groups)
        base.append(at)
        return moved_by

    moved_by = in_chunks(one, chunk, groups)
    return base[0], moved_by


def _check_finite(moved_by: Params, steps: int) -> None:
    leaves = jax.tree.leaves(moved_by)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
        raise InputError(
            f"the unrolled training is not finite after {steps} steps: lower the learning rate; "
            "with displacement='derivative', give Adam an eps_root"
        )
