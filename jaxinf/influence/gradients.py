"""Gradient similarity: the dot product and the cosine of loss gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import check_differentiable
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.derivatives import Derivatives, Scorer
from jaxinf.influence.directions import global_norm, map_queries, query_gradient
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.ghost.factors import mixed_gradient
from jaxinf.influence.ghost.scores import MixedDirections
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.planner import Planner
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.scorers import contracted_gradients
from jaxinf.typing import Params, PerExampleLoss, PyTree


def grad_dot(
    loss_fn: PerExampleLoss,
    *,
    scorer: Scorer = "auto",
    query_chunk: int | None = 4,
    gradient_chunk: int | None = None,
    compute_dtype: Any = None,
) -> Attributor:
    """Dot product of the query's and the example's loss gradients, `⟨∇ℓ(q), ∇ℓ(z)⟩`.

    It is the limit of one SGD step of Forward-INF, and TracIn (Pruthi et al., NeurIPS 2020, eq.
    1) at one checkpoint with learning rate 1.

    Sign: positive = training on the example lowers the query's loss (a proponent).

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        scorer: `"auto"` plans it; `"jvp"` takes (1 + 2K) forward passes per example and flat
            memory; `"ghost"` about 2 and the contractions; see `jaxinf.influence.derivatives`.
        query_chunk: for forward mode, how many queries share one primal pass, at most.
        gradient_chunk: examples whose gradients are held at once; None: what fits.
        compute_dtype: dtype of parameters and inputs within the loss.

    Returns:
        An `Attributor`, with diagnostics `loss_before` and `gradient_norm`.

    Raises:
        InputError: for an unknown scorer.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = grad_dot(loss)
        >>> print(jnp.round(method.score(method.prepare(jnp.zeros(2), batch), batch), 2))
        [[ 4. -4.]
         [-4.  8.]]
    """
    slopes = Derivatives(scorer, query_chunk, gradient_chunk)
    return Attributor(
        _prepare_gradients(loss_fn, compute_dtype, slopes),
        slopes.score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        slopes.cost,
        f"grad_dot({slopes.name})",
        lambda state, batch: jnp.square(slopes.norms(state.loss_fn, state.params, batch)),
        plan=slopes.plan_score,
    )


def grad_cos(
    loss_fn: PerExampleLoss,
    *,
    scorer: Scorer = "auto",
    query_chunk: int | None = 4,
    gradient_chunk: int | None = None,
    compute_dtype: Any = None,
) -> Attributor:
    """Cosine of the angle between the query's and the example's loss gradients.

    Sign: positive = training on the example lowers the query's loss (a proponent); in [−1, 1],
    and 0 where either gradient is 0.

    Cost: that of `grad_dot` and about 2 forward passes per training example for the norms, which
    `"ghost"` shares.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        scorer: as in `grad_dot`; `"auto"` chooses from those that take gradients anyway.
        query_chunk: as in `grad_dot`.
        gradient_chunk: as in `grad_dot`.
        compute_dtype: dtype of parameters and inputs within the loss.

    Returns:
        An `Attributor`, with diagnostics `loss_before` and `gradient_norm`.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = grad_cos(loss)
        >>> print(jnp.round(method.score(method.prepare(jnp.zeros(2), batch), batch), 2))
        [[ 1.   -0.71]
         [-0.71  1.  ]]
    """
    chosen = Planner(candidates=("gradients", "ghost")) if scorer == "auto" else scorer
    slopes = Derivatives(chosen, query_chunk, gradient_chunk)

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        if slopes.name == "gradients":
            dots, norms = contracted_gradients(
                state.loss_fn, state.params, state.directions, batch, gradient_chunk
            )
        else:
            dots = slopes.score(state, batch)
            norms = slopes.norms(state.loss_fn, state.params, batch)
        product = state.diagnostics["gradient_norm"][:, None] * norms[None, :]
        return jnp.where(product > 0, dots / jnp.where(product > 0, product, 1), 0.0)

    return Attributor(
        _prepare_gradients(loss_fn, compute_dtype, slopes),
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        # reverse mode has the norms at hand; forward mode takes gradients for them besides
        lambda k: 2.0 + slopes.cost(k) if slopes.name in ("jvp", "factored") else 3.0,
        f"grad_cos({slopes.name})",
        plan=slopes.plan_score,
    )


def _prepare_gradients(loss_fn: PerExampleLoss, compute_dtype: Any, slopes: Derivatives) -> Any:
    loss = scoring_loss(loss_fn, compute_dtype)

    @jax.jit
    def gradient(
        loss: Partial, params: Params, group: QueryGroups
    ) -> tuple[Params, dict[str, Any]]:
        found = query_gradient(loss, params, group)
        norm = global_norm(found.displacement)
        return found.displacement, {"loss_before": found.loss_before, "gradient_norm": norm}

    @partial(jax.jit, static_argnums=0)
    def factors(
        leaves: tuple[int, ...], loss: Partial, params: Params, group: QueryGroups
    ) -> tuple[MixedDirections, dict[str, Any]]:
        found, value, norm = mixed_gradient(loss, params, group, leaves)
        return found, {"loss_before": value, "gradient_norm": norm}

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        groups = as_groups(queries)
        leaves = slopes.factored(loss, params, groups)
        if leaves:
            of_one = lambda group: factors(leaves, loss, params, group)
        else:
            of_one = lambda group: gradient(loss, params, group)
        directions, diagnostics = map_queries(of_one, params, groups)
        return DirectionState(loss, params, directions, diagnostics)

    return prepare
