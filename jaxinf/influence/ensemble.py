"""Combinators over several models: checkpoints of one run, or runs from several seeds.

One model's scores carry the accidents of its training; the mean over a few cheap ones is often
worth more than a better method on one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinf.errors import InputError, leaf_name
from jaxinf.influence.attributor import Attributor, DiagnoseFn
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.typing import Params, PerExampleLoss, PyTree


class StackedState(NamedTuple):
    """The inner states over a leading axis C, and their weights."""

    inner: PyTree
    weights: jax.Array


def stack_checkpoints(checkpoints: Sequence[Params]) -> Params:
    """Stack C checkpoints leaf by leaf, for `over_checkpoints` and `tracin`.

    Raises:
        InputError: for none, or for checkpoints of unlike structure or shapes, naming the first.

    Example:
        >>> stack_checkpoints([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].shape
        (2, 2)
    """
    if not checkpoints:
        raise InputError("no checkpoints to stack: pass at least one")
    first = jax.tree_util.tree_leaves_with_path(checkpoints[0])
    for number, checkpoint in enumerate(checkpoints):
        if jax.tree.structure(checkpoint) != jax.tree.structure(checkpoints[0]):
            raise InputError(
                f"checkpoint {number} is {jax.tree.structure(checkpoint)} but checkpoint 0 is "
                f"{jax.tree.structure(checkpoints[0])}: all must be of one model"
            )
        for (path, leaf), other in zip(first, jax.tree.leaves(checkpoint), strict=True):
            if jnp.shape(leaf) != jnp.shape(other):
                raise InputError(
                    f"{leaf_name(f'checkpoint {number}', path)} has shape {jnp.shape(other)} but "
                    f"in checkpoint 0 {jnp.shape(leaf)}: all must be of one model"
                )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *checkpoints)


def over_checkpoints(attributor: Attributor, weights: Sequence[float]) -> Attributor:
    """Weighted sum of one method's scores over C models, stacked: checkpoints, or seeds.

    Sign: as the inner attributor's. Cost: C times the inner one's.

    Args:
        attributor: the method.
        weights: one per model; `[1 / C] * C` for the mean.

    Returns:
        An `Attributor` whose params have a leading axis C, as from `stack_checkpoints`. Its
        diagnostics are the inner one's, averaged over the models.

    Raises:
        InputError: no weights; in `prepare`, params that are not stacked over C models.

    Example:
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = over_checkpoints(grad_dot(loss), [0.5, 0.5])
        >>> models = stack_checkpoints([jnp.zeros(2), jnp.array([1.0, 0.0])])
        >>> print(jnp.round(method.score(method.prepare(models, batch), batch), 2))
        [[ 2. -2.]
         [-2. 20.]]
    """
    given = _check_weights(weights)
    count = len(given)
    inner_diagnose = attributor.diagnose

    def prepare(params: Params, queries: PyTree, train: Any = None) -> StackedState:
        check_stacked(params, count)
        each = [
            attributor.prepare(jax.tree.map(lambda p, c=c: p[c], params), queries, train)
            for c in range(count)
        ]
        return StackedState(jax.tree.map(lambda *a: jnp.stack(a), *each), jnp.asarray(given))

    def score(state: StackedState, batch: PyTree) -> jax.Array:
        def add(total: jax.Array, one: StackedState) -> tuple[jax.Array, None]:
            found = attributor.score(one.inner, batch)
            return total + one.weights.astype(found.dtype) * found, None

        first = jax.tree.map(lambda a: a[0], state.inner)
        like = jax.eval_shape(attributor.score, first, batch)
        return lax.scan(add, jnp.zeros(like.shape, like.dtype), state)[0]

    def diagnose(state: StackedState, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        assert inner_diagnose is not None
        figures: DiagnoseFn = inner_diagnose
        each = lax.map(lambda inner: figures(inner, batch, key), state.inner)
        return {name: jnp.mean(figure, axis=0) for name, figure in dict(each).items()}

    def plan(state: StackedState, batch: PyTree) -> ScoringPlan | None:
        first = jax.tree.map(lambda a: a[0], state.inner)
        of_one = attributor.plan and attributor.plan(first, batch)
        return of_one and of_one.times(count)

    inner_loss, inner_cost = attributor.loss_fn, attributor.forward_passes
    return Attributor(
        prepare,
        score,
        inner_diagnose and diagnose,
        inner_loss and over_models(inner_loss),
        inner_cost and (lambda k: count * inner_cost(k)),
        f"over_checkpoints({attributor.name}, {given.tolist()})",
        plan=plan,
        num_models=count * attributor.num_models,
    )


def ensemble(
    attributors: Sequence[Attributor], weights: Sequence[float] | None = None
) -> Attributor:
    """Weighted sum of the scores of unlike methods, or of one method on models of unlike kind.

    Where the models are alike, `over_checkpoints` compiles once for all of them.

    Sign: as the inner attributors', which should agree on theirs and on their scale.

    Args:
        attributors: M of them, over the same examples.
        weights: one each; default the mean.

    Returns:
        An `Attributor` whose params are a tuple of M, one for each. Diagnostics are those of the
        members, with their number after the name.

    Raises:
        InputError: no attributors, or not one weight each; in `prepare`, not one model each.

    Example:
        >>> from jaxinf.influence import grad_cos, grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = ensemble([grad_dot(loss), grad_cos(loss)], [0.25, 1.0])
        >>> state = method.prepare((jnp.zeros(2), jnp.zeros(2)), batch)
        >>> np.asarray(method.score(state, batch)).round(1).tolist()
        [[2.0, -1.7...], [-1.7..., 3.0]]
    """
    if not attributors:
        raise InputError("an ensemble needs at least one attributor")
    count = len(attributors)
    given = _check_weights([1 / count] * count if weights is None else weights)
    if len(given) != count:
        raise InputError(f"{count} attributors but {len(given)} weights: give one each")

    def prepare(params: Any, queries: PyTree, train: Any = None) -> tuple[PyTree, ...]:
        if not isinstance(params, tuple | list) or len(params) != count:
            raise InputError(f"params must be a tuple of {count} models, one per attributor")
        pairs = zip(attributors, params, strict=True)
        return tuple(member.prepare(model, queries, train) for member, model in pairs)

    def score(state: tuple[PyTree, ...], batch: PyTree) -> jax.Array:
        found = [member.score(part, batch) for member, part in zip(attributors, state, strict=True)]
        weighted = [weight * part for weight, part in zip(given.tolist(), found, strict=True)]
        return jnp.sum(jnp.stack(weighted), axis=0)

    def diagnose(state: Any, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        return {
            f"{name}_{number}": figure
            for number, (member, part) in enumerate(zip(attributors, state, strict=True))
            if member.diagnose is not None
            for name, figure in member.diagnose(part, batch, key).items()
        }

    def losses(params: Any, batch: PyTree) -> jax.Array:
        each = [
            member.loss_fn(model, batch)
            for member, model in zip(attributors, params, strict=True)
            if member.loss_fn is not None
        ]
        return jnp.sum(jnp.stack(each), axis=0)

    costs = [member.forward_passes for member in attributors]
    known = all(cost is not None for cost in costs)
    return Attributor(
        prepare,
        score,
        diagnose,
        losses if any(member.loss_fn is not None for member in attributors) else None,
        (lambda k: float(sum(cost(k) for cost in costs if cost))) if known else None,
        f"ensemble({', '.join(member.name for member in attributors)}; {given.tolist()})",
        num_models=sum(m.num_models for m in attributors if m.loss_fn is not None) or 1,
    )


def over_models(loss_fn: PerExampleLoss | Callable[..., Any]) -> PerExampleLoss:
    """Mean loss over the leading axis of stacked params: not finite where one of them is not."""
    return lambda params, batch: jnp.mean(jax.vmap(loss_fn, (0, None))(params, batch), axis=0)


def check_stacked(params: Params, count: int) -> None:
    """Refuse params whose leaves have no leading axis of `count`. Traceable.

    Raises:
        InputError: naming the leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        shape = jnp.shape(leaf)
        if not shape or shape[0] != count:
            raise InputError(
                f"{leaf_name('params', path)} has shape {shape}, no leading axis of {count} "
                "checkpoints: stack them with jaxinf.influence.stack_checkpoints, one per weight"
            )


def _check_weights(weights: Sequence[float]) -> np.ndarray:
    given = np.asarray(weights, np.float64)
    if given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise InputError(f"weights must be one finite number per model, not {weights!r}")
    return given
