"""Scoring along a displacement of the parameters: three ways, one sign."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.influence.diagnostics import step_diagnostics, unresolved_share
from jaxinf.influence.directions import add
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.passes import check_chunk
from jaxinf.influence.scorers import (
    contracted_gradients,
    directional_derivatives,
    finite_changes,
)
from jaxinf.typing import Params, PyTree

DisplacementScorer = Literal["jvp", "finite", "gradients"]


def along_displacement(
    scorer: DisplacementScorer, query_chunk: int | None, gradient_chunk: int | None = None
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[int], float]]:
    """The training side of every method whose query side ends in a displacement.

    Sign: the score is how much the displacement *lowers* an example's loss.

    Args:
        scorer: `"jvp"`, the exact first order, (1 + 2K) forward passes per example; `"finite"`,
            the step itself, 1 + K; `"gradients"`, the first order from per-example gradients,
            about 3 whatever K.
        query_chunk: how many displacements go at once. None: all.
        gradient_chunk: for `"gradients"`; None takes what fits in 256 MiB.

    Returns:
        `score` and `diagnose` over a `DirectionState`, and the cost in forward passes.

    Raises:
        InputError: for an unknown scorer, or a chunk that is not positive.
    """
    if scorer not in ("jvp", "finite", "gradients"):
        raise InputError(f"scorer must be 'jvp', 'finite' or 'gradients', not {scorer!r}")
    check_chunk(query_chunk, "query_chunk")
    check_chunk(gradient_chunk, "gradient_chunk")

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        if scorer == "finite":
            return -finite_changes(state.loss_fn, _models(state), batch, query_chunk)
        if scorer == "jvp":
            return -directional_derivatives(
                state.loss_fn, state.params, state.directions, batch, query_chunk
            )
        return -contracted_gradients(
            state.loss_fn, state.params, state.directions, batch, gradient_chunk
        )[0]

    def diagnose(state: DirectionState, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        if scorer != "finite":
            return state.diagnostics
        lost = jax.vmap(lambda u: unresolved_share(state.params, u))(state.directions)
        return (
            state.diagnostics
            | {"unresolved_step": lost}
            | step_diagnostics(state.loss_fn, _models(state), batch, key)
        )

    costs = {
        "finite": lambda k: 1.0 + k,
        "jvp": lambda k: -(-k // (query_chunk or k)) + 2.0 * k,
        "gradients": lambda k: 3.0,
    }
    return score, diagnose, costs[scorer]


def _models(state: DirectionState) -> Params:
    moved = jax.vmap(lambda u: add(state.params, u))(state.directions)
    return jax.tree.map(lambda p, m: jnp.concatenate([p[None], m]), state.params, moved)
