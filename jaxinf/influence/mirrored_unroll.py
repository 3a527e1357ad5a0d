"""The mirror, unrolled: what the query would do to the model if it were trained on.

The model goes on training on the full objective, once as it is and once with the query added as
one more example, from the same start and over the same batches. The difference between the two is
the query's displacement, and on a convex problem it tends to that of retraining with the query
(mirrored leave-one-out) as the steps go on. One step on the query alone, as in `forward_inf`,
does not.
"""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.along import DisplacementScorer, along_displacement
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.directions import global_norm
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure, measure_name
from jaxinf.influence.passes import TrainingRows, in_chunks, only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups, as_groups, group_loss
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree

Displacement = Literal["finite", "derivative"]


def mirrored_unroll(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    full_batch: bool = True,
    displacement: Displacement = "finite",
    measure: Measure = "loss",
    penalty: Any = None,
    scorer: DisplacementScorer = "auto",
    query_chunk: int | None = 16,
    gradient_chunk: int | None = None,
) -> Attributor:
    """`ℓ(z; θ_D) − ℓ(z; θ_{D+q})` after k steps on the training set without and with the query.

    The objective is the mean loss over the N training examples plus the penalty; the query enters
    with weight 1/N, at every step.

    Sign: positive = training on the example lowers the query's loss (a proponent), by the mirror:
    training on the query lowers the example's. Unit: of the loss, as `influence_function`.

    Cost: K + 1 trainings of k steps, together, once; then per training example as the scorer
    says: with `"jvp"` or `"finite"` the training side is forward-only.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        optimizer: any optax optimiser, started afresh.
        steps: k.
        full_batch: each step takes the whole training set. False: one block of `batch_size` rows
            in the order of the set, block after block.
        displacement: `"finite"`, the difference of the two trainings; `"derivative"`, its limit
            for a small weight of the query, carried forward through the steps. The derivative
            takes no difference of nearly equal parameters, and so keeps its digits in float32;
            the optimiser must be differentiable (for Adam, set its `eps_root`).
        measure: what the query adds: `"loss"`, `"margin"` or a function like a loss.
        penalty: `params -> scalar` that the objective adds to the mean loss, or None.
        scorer: `"auto"` plans it; `"finite"`, `"jvp"`, `"gradients"`, `"ghost"` or a `Planner`:
            see `jaxinf.influence.derivatives`.
        query_chunk: how many queries are trained on, and scored, at once.
        gradient_chunk: examples whose gradients are held at once; None: what fits.

    Returns:
        An `Attributor` whose `prepare` needs the training set. Its diagnostics, float[K] each:
        `loss_before` and `loss_after` (the query's measure after the steps without and with it)
        and `step_norm`; with `scorer="finite"` also those of `forward_inf`.

    Raises:
        InputError: for settings that mean nothing, or no training set to pass over; in `prepare`,
            steps that diverge.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = mirrored_unroll(loss, optimizer=optax.sgd(0.1), steps=1)
        >>> state = method.prepare(jnp.zeros(2), batch, Stream(as_source(batch), 2))
        >>> scores = method.score(state, batch)
        >>> [[round(abs(float(score)), 4) for score in row] for row in scores]
        [[0.0475, 0.0], [0.0, 0.16]]

    Reference: the hypothesis of Ko et al., The Mirrored Influence Hypothesis, CVPR 2024.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    if displacement not in ("finite", "derivative"):
        raise InputError(f"displacement must be 'finite' or 'derivative', not {displacement!r}")
    loss = scoring_loss(loss_fn, None, "highest")
    measured = scoring_loss(as_measure(loss, measure), None, "highest")
    scored = loss if scorer == "finite" else scoring_loss(loss_fn)
    held = None if penalty is None else Partial(penalty)
    scoring = along_displacement(scorer, query_chunk, gradient_chunk)
    update = _Update(optimizer)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        groups = as_groups(queries)
        if only_shapes(train, params, queries):
            # the optimiser's own program all the same: a store is known by it
            moved, _ = update(held, params, optimizer.init(params), params)
            nowhere = jax.tree.map(
                lambda m: jnp.full((groups.size, *m.shape), jnp.nan, m.dtype), moved
            )
            return _state(scored, measured, params, nowhere, groups)
        rows = training_rows(train, "mirrored_unroll")

        def unroll(query: tuple[jax.Array, QueryGroups] | None) -> Params:
            at, state = params, optimizer.init(params)
            blocks: Iterator[tuple[Batch, Any]] = chain.from_iterable(repeat(rows))
            for _ in range(steps):
                gradient = _mean_gradient(loss, at, rows if full_batch else next(blocks))
                if query is not None:
                    pull = _pull if displacement == "finite" else _pull_at_zero
                    gradient = jax.tree.map(jnp.add, gradient, pull(measured, at, *query))
                at, state = update(held, at, state, gradient)
            return at

        without = unroll(None) if displacement == "finite" else None
        weight = jnp.asarray(1 / rows.count, jnp.result_type(*jax.tree.leaves(params)))

        def displaced(group: QueryGroups) -> tuple[Params, Params]:
            if without is not None:
                moved = unroll((weight, group))
                return without, jax.tree.map(jnp.subtract, moved, without)
            of_weight = lambda weight: unroll((weight, group))
            return jax.jvp(of_weight, (jnp.zeros_like(weight),), (weight,))

        each = lambda groups: jax.vmap(displaced, out_axes=(None, 0))(groups)
        base, moved_by = _in_chunks(each, query_chunk, groups)
        _check_finite(moved_by, steps)
        return _state(scored, measured, base, moved_by, groups)

    batches = "full" if full_batch else "blocks"
    asked = measure_name(measure)
    return Attributor(
        prepare,
        scoring.score,
        scoring.diagnose,
        loss_fn,
        scoring.cost,
        f"mirrored_unroll({steps} steps, {batches}, {displacement}, {asked}, {scoring.name})",
        plan=scoring.plan,
    )


class _Update:
    """One step of the optimiser on the mean loss's gradient and the penalty's, compiled."""

    def __init__(self, optimizer: optax.GradientTransformation):
        def step(penalty: Any, at: Params, state: PyTree, gradient: Params) -> tuple[Params, Any]:
            if penalty is not None:
                gradient = jax.tree.map(jnp.add, gradient, jax.grad(penalty)(at))
            updates, state = optimizer.update(gradient, state, at)
            return optax.apply_updates(at, updates), state

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


@jax.jit
def _losses(measured: Partial, params: Params, groups: QueryGroups) -> jax.Array:
    return jax.lax.map(lambda group: group_loss(measured, params, group), groups)


@jax.jit
def _state(
    scored: Partial, measured: Partial, base: Params, moved_by: Params, groups: QueryGroups
) -> DirectionState:
    def after(pair: tuple[Params, QueryGroups]) -> jax.Array:
        moved = jax.tree.map(jnp.add, base, pair[0])
        return group_loss(measured, moved, pair[1])

    return DirectionState(
        scored,
        base,
        moved_by,
        {
            "loss_before": _losses(measured, base, groups),
            "loss_after": jax.lax.map(after, (moved_by, groups)),
            "step_norm": jax.vmap(global_norm)(moved_by),
        },
    )


def _check_finite(moved_by: Params, steps: int) -> None:
    leaves = jax.tree.leaves(moved_by)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
        raise InputError(
            f"the unrolled training is not finite after {steps} steps: lower the learning rate; "
            "with displacement='derivative', give Adam an eps_root"
        )
