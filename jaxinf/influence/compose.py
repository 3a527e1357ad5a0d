"""Directions and scorers put together by hand: any query side with any training side.

A *direction* is a pure function `(params, queries, train) -> displacement`: for each of the K
queries, where the query would move the parameters (a pytree like `params` with a leading axis K).
An example's score is how much that lowers its loss. Everything else composes around it: normalise,
sum over checkpoints, ensemble.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.engine import Stream
from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.along import DisplacementScorer, along_displacement
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.ensemble import check_stacked
from jaxinf.influence.forward_inf import DirectionState, forward_inf_jvp
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.unrolling import Displacement, make_unrolling
from jaxinf.influence.vectors import row_norms, to_matrix
from jaxinf.typing import Params, PerExampleLoss, PyTree


class DirectionFn(Protocol):
    """The query side."""

    def __call__(self, params: Params, queries: QueryGroups, train: Stream | None = None) -> Params:
        """Displacements, like `params` with a leading axis K."""
        ...


def from_direction(
    direction: DirectionFn,
    loss_fn: PerExampleLoss,
    *,
    scorer: DisplacementScorer = "auto",
    query_chunk: int | None = 16,
    name: str = "direction",
) -> Attributor:
    """An attributor from any direction and any scorer.

    Sign: positive = moving along the direction lowers the example's loss; for directions that
    lower the query's loss, a proponent.

    Args:
        direction: one of those below, a sum of them, or the user's own.
        loss_fn: `(params, batch) -> float[B]`, of the training side.
        scorer: `"auto"` plans the first order; `"finite"` takes the step itself; others as in
            `jaxinf.influence.derivatives`.
        query_chunk: how many directions are scored at once.
        name: which direction it is, for plans and stores: say its settings (steps, damping), which
            a store cannot see.

    Returns:
        An `Attributor`, with the diagnostic `step_norm`.

    Raises:
        InputError: for an unknown scorer; in `prepare`, for a displacement unlike the parameters.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> signs = lambda params, queries, train=None: jax.tree.map(
        ...     jnp.sign, update_direction(loss, optax.sgd(1.0))(params, queries))
        >>> method = from_direction(signs, loss, name="sign of the gradient")
        >>> print(jnp.round(method.score(method.prepare(jnp.zeros(2), batch), batch), 2))
        [[ 2. -2.]
         [-2.  4.]]
    """
    scoring = along_displacement(scorer, query_chunk)
    loss = scoring_loss(loss_fn, None, "highest" if scorer == "finite" else None)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        groups = as_groups(queries)
        found = direction(params, groups, train)
        expected = jax.tree.map(lambda p: (groups.weights.shape[0], *jnp.shape(p)), params)
        shapes = jax.tree.map(jnp.shape, found)
        if shapes != expected:
            raise InputError(
                "a direction must be like params with a leading axis of "
                f"{groups.weights.shape[0]} queries: its shapes are {shapes}, not {expected}"
            )
        figures = {"step_norm": row_norms(to_matrix(found))}
        return DirectionState(loss, params, found, figures)

    return Attributor(
        prepare,
        scoring.score,
        scoring.diagnose,
        loss_fn,
        scoring.cost,
        f"from_direction({name}, {scoring.name})",
        plan=scoring.plan,
    )


def update_direction(
    loss_fn: PerExampleLoss,
    optimizer: optax.GradientTransformation,
    *,
    steps: int = 1,
) -> DirectionFn:
    """Steps of any optax optimiser on the query alone; with `optax.sgd(1.0)`, minus the gradient.

    Example:
        >>> loss = lambda w, batch: batch["x"] @ w
        >>> batch = {"x": jnp.array([[1.0, -2.0]])}
        >>> update_direction(loss, optax.sgd(1.0))(jnp.zeros(2), as_groups(batch)).tolist()
        [[-1.0, 2.0]]
    """
    return _of(forward_inf_jvp(loss_fn, optimizer=optimizer, steps=steps))


def inverse_curvature_direction(loss_fn: PerExampleLoss, **options: Any) -> DirectionFn:
    """Minus the inverse curvature times the query's gradient, over N.

    Args:
        loss_fn: `(params, batch) -> float[B]`.
        **options: those of `influence_function`: solver, damping, curvature, measure, penalty.

    Warns:
        InfluenceWarning: the system is not solved, except under tracing: there take
            `influence_function` itself, whose state carries `residual`.

    Example:
        >>> from jaxinf.engine import as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[2.0]]), "y": jnp.array([1.0])}
        >>> direction = inverse_curvature_direction(loss, solver="exact")
        >>> direction(jnp.zeros(1), as_groups(batch), Stream(as_source(batch), 1)).tolist()
        [[0.5]]
    """
    return _of(influence_function(loss_fn, **options))


def unrolled_direction(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    full_batch: bool = True,
    displacement: Displacement = "finite",
    measure: Measure = "loss",
    penalty: Any = None,
    query_chunk: int | None = 16,
) -> DirectionFn:
    """Full-objective training for k steps with the query, minus the same without it.

    This is the query side of `mirrored_unroll`, to the bit. That scores where the steps without
    the query end, `from_direction` at the params themselves: at the objective's minimum these are
    one model, and so are the scores.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        optimizer: any optax optimiser, started afresh.
        steps: k.
        full_batch: as the other arguments, see `mirrored_unroll`.
        displacement: `"finite"` or `"derivative"`.
        measure: what the query adds.
        penalty: `params -> scalar` that the objective adds to the mean loss, or None.
        query_chunk: how many queries are trained on at once.

    Returns:
        A direction, which needs the training set.

    Raises:
        InputError: for settings that mean nothing; in the direction, for no training set to pass
            over, or steps that diverge.

    Example:
        >>> from jaxinf.engine import as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0]]), "y": jnp.array([1.0])}
        >>> direction = unrolled_direction(loss, optimizer=optax.sgd(0.5), steps=2)
        >>> direction(jnp.zeros(1), as_groups(batch), Stream(as_source(batch), 1)).tolist()
        [[0.25]]
    """
    unrolling = make_unrolling(
        loss_fn,
        optimizer=optimizer,
        steps=steps,
        full_batch=full_batch,
        displacement=displacement,
        measure=measure,
        penalty=penalty,
        query_chunk=query_chunk,
    )

    def direction(params: Params, queries: QueryGroups, train: Stream | None = None) -> Params:
        return unrolling(params, queries, train, "unrolled_direction")[1]

    return direction


def checkpoint_direction(
    direction: DirectionFn, models: Params, weights: Sequence[float]
) -> DirectionFn:
    """Weighted sum of one direction taken at each checkpoint, whichever model is scored.

    The training side then follows one model only. `tracin`, and `over_checkpoints` around any
    attributor, follow every example at every checkpoint instead, at C times the cost.

    Args:
        direction: any.
        models: parameters with a leading axis C, as from `stack_checkpoints`.
        weights: one per checkpoint, such as its learning rate.

    Returns:
        A direction.

    Raises:
        InputError: not one weight each.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0]]), "y": jnp.array([1.0])}
        >>> plain = update_direction(loss, optax.sgd(1.0))
        >>> both = checkpoint_direction(plain, jnp.array([[0.0], [0.5]]), [1.0, 2.0])
        >>> both(jnp.ones(1), as_groups(batch)).tolist()
        [[2.0]]
    """
    check_stacked(models, len(weights))

    def at(checkpoint: int) -> DirectionFn:
        model = jax.tree.map(lambda p: p[checkpoint], models)

        def moved(params: Params, queries: QueryGroups, train: Stream | None = None) -> Params:
            return direction(model, queries, train)

        return moved

    return sum_directions([at(c) for c in range(len(weights))], weights)


def sum_directions(directions: Sequence[DirectionFn], weights: Sequence[float]) -> DirectionFn:
    """Weighted sum of directions: scored in one pass, at first order the sum of their scores.

    Raises:
        InputError: not one weight each.

    Example:
        >>> still = lambda params, queries, train=None: jnp.zeros((1, 2))
        >>> ahead = lambda params, queries, train=None: jnp.ones((1, 2))
        >>> sum_directions([still, ahead], [1.0, 0.5])(jnp.zeros(2), None).tolist()
        [[0.5, 0.5]]
    """
    given = np.asarray(weights, float)
    if not len(directions) or given.shape != (len(directions),):
        raise InputError(f"{len(directions)} directions but {given.size} weights: give one each")

    def total(params: Params, queries: QueryGroups, train: Stream | None = None) -> Params:
        parts = [one(params, queries, train) for one in directions]
        add = lambda *a: sum(w * x for w, x in zip(given.tolist(), a, strict=True))
        return jax.tree.map(add, *parts)

    return total


def _of(attributor: Attributor) -> DirectionFn:
    """The displacement that an attributor's query side ends in."""

    def direction(params: Params, queries: QueryGroups, train: Stream | None = None) -> Params:
        return attributor.prepare(params, queries, train).directions

    return direction
