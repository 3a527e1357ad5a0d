"""Combinators: attributors in, attributors out.

Large losses and large gradients attract influence whatever the query; dividing them out is
often worth more than the choice of the method beneath.
"""

from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.derivatives import norms_of_gradients
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import estimated_gradient_norms
from jaxinf.typing import Params, PerExampleLoss, PyTree


class NormalisedState(NamedTuple):
    """The inner state, and the model that the normaliser is computed with."""

    inner: PyTree
    loss_fn: Partial
    params: Params


def normalise_by_loss(
    attributor: Attributor, loss_fn: PerExampleLoss, *, floor: float = 1e-6
) -> Attributor:
    """Divide each example's scores by its loss before the step: the relative change of its loss.

    Sign: as the inner attributor's.

    Cost: one forward pass more per example (shared with the inner one where XLA sees it).

    Args:
        attributor: any attributor over the same parameters.
        loss_fn: the per-example loss to divide by; losses must be ≥ 0.
        floor: added to each loss, in units of the loss, so that a loss of 0 divides nothing.

    Returns:
        An `Attributor` with the inner one's diagnostics.

    Raises:
        InputError: for a floor that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = normalise_by_loss(grad_dot(loss), loss)
        >>> state = method.prepare(jnp.zeros(2), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[ 4. -4.]
         [-4.  8.]]
    """
    if not floor > 0:
        raise InputError(f"floor must be positive, not {floor}")

    def norms(loss: Partial, params: Params, batch: PyTree) -> jax.Array:
        return loss(params, batch) + floor

    return _normalised(attributor, loss_fn, norms, 1.0, f"{attributor.name} / loss")


def normalise_by_gradient_norm(
    attributor: Attributor,
    loss_fn: PerExampleLoss,
    *,
    num_probes: int | None = None,
    key: jax.Array | None = None,
    gradient_chunk: int | None = None,
    floor: float = 1e-12,
) -> Attributor:
    """Divide each example's scores by the norm of its loss gradient.

    Sign: as the inner attributor's. On `grad_dot` this is `grad_cos` times the query's norm.

    Args:
        attributor: any attributor over the same parameters.
        loss_fn: the per-example loss whose gradients are meant.
        num_probes: estimate the norms from that many random directions, by forward passes
            alone (2 per probe; relative error about `1 / sqrt(2 num_probes)`). None computes
            them exactly, from one backward pass.
        key: for the random directions; needed with `num_probes`.
        gradient_chunk: for the exact norms, examples held at once; None: all.
        floor: added to each norm.

    Returns:
        An `Attributor` with the inner one's diagnostics.

    Raises:
        InputError: `num_probes` without a key, or not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = normalise_by_gradient_norm(grad_dot(loss), loss)
        >>> print(jnp.round(method.score(method.prepare(jnp.zeros(2), batch), batch), 2))
        [[ 2.   -1.41]
         [-2.    2.83]]
    """
    if num_probes is not None and (key is None or num_probes < 1):
        raise InputError(
            "num_probes must be at least 1 and needs a key: pass key=jax.random.key(0)"
        )

    def norms(loss: Partial, params: Params, batch: PyTree) -> jax.Array:
        if num_probes is None:
            return norms_of_gradients(loss, params, batch, gradient_chunk) + floor
        assert key is not None
        return estimated_gradient_norms(loss, params, batch, key, num_probes) + floor

    cost = 3.0 if num_probes is None else 1.0 + 2.0 * num_probes
    return _normalised(attributor, loss_fn, norms, cost, f"{attributor.name} / gradient norm")


def _normalised(
    attributor: Attributor, loss_fn: PerExampleLoss, norms: Any, cost: float, name: str
) -> Attributor:
    loss = scoring_loss(loss_fn)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> NormalisedState:
        return NormalisedState(attributor.prepare(params, queries, train), loss, params)

    def score(state: NormalisedState, batch: PyTree) -> jax.Array:
        scale = norms(state.loss_fn, state.params, batch)
        return attributor.score(state.inner, batch) / scale[None, :]

    inner_diagnose, inner_cost = attributor.diagnose, attributor.forward_passes
    inner_plan = attributor.plan
    return Attributor(
        prepare,
        score,
        inner_diagnose and (lambda state, batch, key: inner_diagnose(state.inner, batch, key)),
        attributor.loss_fn,
        inner_cost and (lambda k: inner_cost(k) + cost),
        name,
        plan=inner_plan and (lambda state, batch: inner_plan(state.inner, batch)),
        num_models=attributor.num_models,
    )
