"""Gradient similarity: the dot product and the cosine of loss gradients."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.directions import global_norm, map_queries, query_gradient
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.scorers import contracted_gradients, directional_derivatives
from jaxinf.typing import Params, PerExampleLoss, PyTree

Scorer = Literal["jvp", "gradients"]


def grad_dot(
    loss_fn: PerExampleLoss,
    *,
    scorer: Scorer = "jvp",
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
        scorer: `"jvp"` takes (1 + 2K) forward passes per example and flat memory;
            `"gradients"` about 3, whatever K, and holds `gradient_chunk` gradients at once.
        query_chunk: for `"jvp"`, how many queries share one primal pass.
        gradient_chunk: for `"gradients"`; None takes what fits in 256 MiB.
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
    if scorer not in ("jvp", "gradients"):
        raise InputError(f"scorer must be 'jvp' or 'gradients', not {scorer!r}")

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        if scorer == "jvp":
            return directional_derivatives(
                state.loss_fn, state.params, state.directions, batch, query_chunk
            )
        return contracted_gradients(
            state.loss_fn, state.params, state.directions, batch, gradient_chunk
        )[0]

    cost = (lambda k: -(-k // (query_chunk or k)) + 2.0 * k) if scorer == "jvp" else (lambda k: 3.0)
    return Attributor(
        _prepare_gradients(loss_fn, compute_dtype),
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        cost,
        f"grad_dot({scorer})",
    )


def grad_cos(
    loss_fn: PerExampleLoss, *, gradient_chunk: int | None = None, compute_dtype: Any = None
) -> Attributor:
    """Cosine of the angle between the query's and the example's loss gradients.

    Sign: positive = training on the example lowers the query's loss (a proponent); in [−1, 1],
    and 0 where either gradient is 0.

    Cost: about 3 forward passes per training example, whatever K; per-example gradients are
    held `gradient_chunk` at a time.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        gradient_chunk: None takes what fits in 256 MiB.
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

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        dots, norms = contracted_gradients(
            state.loss_fn, state.params, state.directions, batch, gradient_chunk
        )
        product = state.diagnostics["gradient_norm"][:, None] * norms[None, :]
        return jnp.where(product > 0, dots / jnp.where(product > 0, product, 1), 0.0)

    return Attributor(
        _prepare_gradients(loss_fn, compute_dtype),
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        lambda k: 3.0,
        "grad_cos",
    )


def _prepare_gradients(loss_fn: PerExampleLoss, compute_dtype: Any) -> Any:
    loss = scoring_loss(loss_fn, compute_dtype)

    @jax.jit
    def gradient(
        loss: Partial, params: Params, group: QueryGroups
    ) -> tuple[Params, dict[str, Any]]:
        found = query_gradient(loss, params, group)
        norm = global_norm(found.displacement)
        return found.displacement, {"loss_before": found.loss_before, "gradient_norm": norm}

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        of_one = lambda group: gradient(loss, params, group)
        directions, diagnostics = map_queries(of_one, params, as_groups(queries))
        return DirectionState(loss, params, directions, diagnostics)

    return prepare
