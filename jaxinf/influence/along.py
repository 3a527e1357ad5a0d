"""Scoring along a displacement of the parameters: several ways, one sign."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxinf.influence.derivatives import Derivatives, Scorer
from jaxinf.influence.diagnostics import step_diagnostics, unresolved_share
from jaxinf.influence.directions import add
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.scorers import finite_changes
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.typing import Params, PyTree

DisplacementScorer: TypeAlias = Literal["finite"] | Scorer
"""Those of `Scorer`, and `"finite"`: the step itself."""


class Scoring(NamedTuple):
    """The training side over a `DirectionState`, and its cost in forward passes."""

    score: Callable[..., jax.Array]
    diagnose: Callable[..., dict[str, jax.Array]]
    cost: Callable[[int], float]
    plan: Callable[..., ScoringPlan | None]
    name: str


def along_displacement(
    scorer: DisplacementScorer, query_chunk: int | None, gradient_chunk: int | None = None
) -> Scoring:
    """The training side of every method whose query side ends in a displacement.

    Sign: the score is how much the displacement *lowers* an example's loss.

    Args:
        scorer: `"finite"`, the step itself, (1 + K) forward passes per example; or the first
            order, by `"auto"` or one of the scorers of `jaxinf.influence.derivatives`.
        query_chunk: how many displacements go at once, at most. None: all, or as planned.
        gradient_chunk: examples whose gradients are held at once; None: what fits.

    Raises:
        InputError: for an unknown scorer, or a chunk that is not positive.
    """
    finite = scorer == "finite"
    slopes = Derivatives("jvp" if scorer == "finite" else scorer, query_chunk, gradient_chunk)

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        if finite:
            return -finite_changes(state.loss_fn, _models(state), batch, query_chunk)
        return -slopes.score(state, batch)

    def diagnose(state: DirectionState, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        if not finite:
            return state.diagnostics
        lost = jax.vmap(lambda u: unresolved_share(state.params, u))(state.directions)
        return (
            state.diagnostics
            | {"unresolved_step": lost}
            | step_diagnostics(state.loss_fn, _models(state), batch, key)
        )

    def plan(state: DirectionState, batch: PyTree) -> ScoringPlan | None:
        return None if finite else slopes.plan_score(state, batch)

    cost = (lambda k: 1.0 + k) if finite else slopes.cost
    return Scoring(score, diagnose, cost, plan, "finite" if finite else slopes.name)


def _models(state: DirectionState) -> Params:
    moved = jax.vmap(lambda u: add(state.params, u))(state.directions)
    return jax.tree.map(lambda p, m: jnp.concatenate([p[None], m]), state.params, moved)
