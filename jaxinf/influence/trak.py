"""TRAK: a linear model on randomly projected gradients, averaged over checkpoints."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.directions import map_queries, query_gradient
from jaxinf.influence.ensemble import check_stacked, over_models
from jaxinf.influence.example_map import map_examples
from jaxinf.influence.inverse_hessian.system import DampingUnit, damping_name
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure, doubt, measure_name
from jaxinf.influence.passes import is_traced, only_shapes, training_rows
from jaxinf.influence.projection import project
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.scorers import example_gradient, gradient_chunk
from jaxinf.influence.vectors import to_vector
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


class TrakState(NamedTuple):
    """C models, (ΦᵀΦ + damping)⁻¹ of each [C, d, d], and what it makes of the queries [C, K, d]."""

    loss_fn: Partial
    measured: Partial
    models: Params
    inverse: jax.Array
    solved: jax.Array
    diagnostics: dict[str, jax.Array]


def trak(
    loss_fn: PerExampleLoss,
    *,
    projection_dim: int | None,
    key: jax.Array | None = None,
    num_checkpoints: int | None = None,
    damping: float = 0.0,
    damping_unit: DampingUnit = "absolute",
    measure: Measure = "margin",
    gradient_chunk_size: int | None = None,
    with_self_score: bool = False,
) -> Attributor:
    """`mean_c φ(q)ᵀ (ΦᵀΦ + damping)⁻¹ φ(z) · mean_c (1 − p(z))`, φ the projected margin gradients.

    Sign: positive = training on the example lowers the query's measure (a proponent). Unit: that
    of the measure. At one checkpoint and without projection it is `influence_function` with
    `curvature="fisher"` and the same measure.

    Cost: about 3 forward passes per training example and checkpoint, the projection apart, both
    in `prepare` and when scoring.

    Args:
        loss_fn: cross-entropy, `(params, batch) -> float[B]`, in evaluation mode.
        projection_dim: d, well below N unless there is damping; None does not project.
        key: of the random projections, one for each checkpoint. Needed with `projection_dim`.
        num_checkpoints: C, where params have a leading axis C (see `stack_checkpoints`); None
            where they are one model.
        damping: added to ΦᵀΦ.
        damping_unit: `"mean_eigenvalue"` takes damping as a multiple of the trace of ΦᵀΦ over
            min(N, d).
        measure: the model output that is attributed: `"margin"`; `"loss"`, which drops the
            weights 1 − p; or a function like a loss (minus the margin, say), which keeps them.
        gradient_chunk_size: per-example gradients held at once; None takes what fits in 256 MiB.
        with_self_score: keep the C inverses d × d in the state, for `self_influence` and
            `normalise_by_self_influence`.

    Returns:
        An `Attributor` whose `prepare` needs the training set. Its diagnostics, float[K] each:
        `loss_before` (the measure) and `condition` (of the matrix that is inverted), averaged
        over the checkpoints.

    Raises:
        InputError: for settings that mean nothing, or no training set to pass over; in
            `prepare`, params that are not stacked, or a singular ΦᵀΦ.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = trak(loss, projection_dim=None, measure="loss")
        >>> state = method.prepare(jnp.zeros(2), batch, Stream(as_source(batch), 2))
        >>> print(jnp.round(method.score(state, batch), 2))
        [[1. 0.]
         [0. 1.]]

    Reference: Park et al., TRAK: Attributing Model Behavior at Scale, ICML 2023, section 3.
    """
    _check_settings(projection_dim, key, num_checkpoints, damping, damping_unit)
    loss = scoring_loss(loss_fn, None, "highest")
    measured = scoring_loss(as_measure(loss, measure), None, "highest")
    count = num_checkpoints or 1

    def projected(vector: jax.Array, number: jax.Array) -> jax.Array:
        if projection_dim is None:
            return vector
        assert key is not None
        return project(vector, jax.random.fold_in(key, number), projection_dim)

    def features(measured: Partial, params: Params, batch: Batch, number: jax.Array) -> jax.Array:
        def one(example: Batch) -> jax.Array:
            return projected(to_vector(example_gradient(measured, params, example)), number)

        return map_examples(one, batch, gradient_chunk(params, batch, gradient_chunk_size))

    @jax.jit
    def gram(
        measured: Partial, params: Params, number: jax.Array, batch: Batch, mask: jax.Array
    ) -> jax.Array:
        found = features(measured, params, batch, number) * mask[:, None]
        with jax.default_matmul_precision("highest"):
            return found.T @ found

    @jax.jit
    def of_query(
        measured: Partial, params: Params, number: jax.Array, group: QueryGroups
    ) -> tuple[jax.Array, jax.Array]:
        found = query_gradient(measured, params, group)
        return projected(to_vector(found.displacement), number), found.loss_before

    def at_one(params: Params, queries: PyTree, train: Any, number: jax.Array) -> tuple[Any, ...]:
        asked = lambda group: of_query(measured, params, number, group)
        right_sides, before = map_queries(asked, params, as_groups(queries))
        if only_shapes(train, params, queries):
            blank = jnp.full_like(right_sides, jnp.nan)
            square = jnp.broadcast_to(blank[:1], (blank.shape[1], blank.shape[1]))
            return square, blank, before, blank[:, 0]
        rows = training_rows(train, "trak")
        matrix = rows.total(lambda batch, mask: gram(measured, params, number, batch, mask))
        most = min(rows.count, matrix.shape[0])
        unit = 1.0 if damping_unit == "absolute" else jnp.trace(matrix) / most
        inverse, condition = _invert(matrix, damping * unit)
        if not is_traced(condition) and not bool(condition < jnp.inf):
            raise InputError(
                f"the Gram matrix of {rows.count} projected gradients of dimension "
                f"{matrix.shape[0]} is singular: set damping above 0, or a projection_dim below "
                "the number of training examples"
            )
        solved = jnp.matmul(right_sides, inverse, precision="highest")
        return inverse, solved, before, jnp.broadcast_to(condition, before.shape)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> TrakState:
        check_differentiable(params)
        models = params
        if num_checkpoints is None:
            models = jax.tree.map(lambda p: p[None], params)
        check_stacked(models, count)
        each = [
            at_one(jax.tree.map(lambda p, c=c: p[c], models), queries, train, jnp.asarray(c))
            for c in range(count)
        ]
        stacked = (jnp.stack(parts) for parts in zip(*each, strict=True))
        inverse, solved, before, condition = stacked
        figures = {"loss_before": before.mean(axis=0), "condition": condition.mean(axis=0)}
        kept = inverse if with_self_score else inverse[:, :0]
        return TrakState(loss, measured, models, kept, solved, figures)

    def over(
        state: TrakState, batch: Batch, dots_of: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> jax.Array:
        """Mean over the models of `dots_of(number, features)`, times the mean weight [B]."""

        def at(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            params = jax.tree.map(lambda p: p[number], state.models)
            found = features(state.measured, params, batch, number)
            losses = state.loss_fn(params, batch)
            weights = jnp.ones_like(losses) if measure == "loss" else doubt(losses)
            with jax.default_matmul_precision("highest"):
                return dots_of(number, found), weights

        if count == 1:
            dots, weights = at(jnp.asarray(0))
        else:
            each, doubts = lax.map(at, jnp.arange(count))
            dots, weights = jnp.mean(each, axis=0), jnp.mean(doubts, axis=0)
        return dots * jnp.broadcast_to(weights, dots.shape)

    def score(state: TrakState, batch: PyTree) -> jax.Array:
        return over(state, batch, lambda c, found: state.solved[c] @ found.T)

    def self_score(state: TrakState, batch: PyTree) -> jax.Array:
        on_itself = lambda c, found: jnp.sum((found @ state.inverse[c]) * found, axis=1)
        return over(state, batch, on_itself)

    losses = loss_fn
    if num_checkpoints is not None:
        losses = over_models(loss_fn)
    asked, damped = measure_name(measure), damping_name(damping, damping_unit)
    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        losses,
        lambda k: 3.0 * count,
        f"trak({projection_dim}, {asked}, {count} checkpoints, {damped})",
        self_score if with_self_score else None,
        num_models=count,
    )


@jax.jit
def _invert(matrix: jax.Array, damping: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    damped = values + damping
    floor = 4 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * damped[-1]
    condition = jnp.where(damped[0] > floor, damped[-1] / damped[0], jnp.inf)
    with jax.default_matmul_precision("highest"):
        return (vectors / damped[None]) @ vectors.T, condition


def _check_settings(
    projection_dim: int | None,
    key: jax.Array | None,
    num_checkpoints: int | None,
    damping: float,
    unit: str,
) -> None:
    if projection_dim is not None and (projection_dim < 1 or key is None):
        raise InputError(
            "projection_dim must be at least 1 and needs a key: pass key=jax.random.key(0)"
        )
    if num_checkpoints is not None and num_checkpoints < 1:
        raise InputError(f"num_checkpoints must be at least 1 or None, not {num_checkpoints}")
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be at least 0, not {damping}")
    if unit not in ("absolute", "mean_eigenvalue"):
        raise InputError(f"damping_unit must be 'absolute' or 'mean_eigenvalue', not {unit!r}")
