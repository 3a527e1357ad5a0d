"""Representer points: the last layer's output as a sum over training examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.influence.attributor import Attributor
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PyTree


class RepresenterState(NamedTuple):
    """The model, and each query's outer product of features and output gradient [K, H, C]."""

    model: Partial
    params: Params
    asked: jax.Array
    diagnostics: dict[str, jax.Array]


def representer_points(
    model: Callable[[Params, Batch], tuple[jax.Array, jax.Array]],
    output_loss: Callable[[jax.Array, Batch], jax.Array],
) -> Attributor:
    """`⟨∂ℓ(q)/∂o, ∂ℓ(z)/∂o⟩ · ⟨φ(q), φ(z)⟩`, φ the features that enter the last, linear layer.

    Where that layer is trained to a stationary point under the penalty λ‖W‖² beside the mean
    loss, its outputs are the sum over the N training examples of `α_z ⟨φ(z), φ(q)⟩`, with
    `α_z = −∂ℓ(z)/∂o / (2λN)`. The score is what z's term does for the query's loss, to first
    order, in units of 1 / (2λN).

    Sign: positive = the example's term lowers the query's loss (a proponent).

    Cost: about one forward pass per training example.

    Args:
        model: `(params, batch) -> (features float[B, H], outputs float[B, C])`; trailing axes are
            flattened.
        output_loss: `(outputs, batch) -> float[B]`.

    Returns:
        An `Attributor`, with the diagnostic `loss_before`.

    Example:
        >>> model = lambda w, batch: (batch["x"], batch["x"] @ w)
        >>> loss = lambda outputs, batch: ((outputs - batch["y"]) ** 2).sum(axis=1)
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([[1.0], [-1.0]])}
        >>> method = representer_points(model, loss)
        >>> state = method.prepare(jnp.zeros((2, 1)), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[ 4. -4.]
         [-4.  8.]]

    Reference: Yeh et al., Representer Point Selection for Explaining Deep Neural Networks, NeurIPS
    2018, theorem 3.1.
    """
    parts = Partial(_Parts(model, output_loss))

    @jax.jit
    def ask(model: Partial, params: Params, groups: QueryGroups) -> RepresenterState:
        count, size = groups.weights.shape
        rows = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), groups.examples)
        features, slopes, losses = model(params, rows)
        weights = groups.weights.astype(losses.dtype)
        shape = lambda a: a.reshape(count, size, -1)
        asked = jnp.einsum("kn,knh,knc->khc", weights, shape(features), shape(slopes))
        before = jnp.sum(weights * losses.reshape(count, size), axis=1)
        return RepresenterState(model, params, asked, {"loss_before": before})

    def prepare(params: Params, queries: PyTree, train: Any = None) -> RepresenterState:
        return ask(parts, params, as_groups(queries))

    def score(state: RepresenterState, batch: Batch) -> jax.Array:
        features, slopes, _ = state.model(state.params, batch)
        return jnp.einsum("khc,bh,bc->kb", state.asked, features, slopes)

    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        lambda params, batch: output_loss(model(params, batch)[1], batch),
        lambda k: 1.0,
        "representer_points",
    )


class _Parts:
    def __init__(self, model: Callable[..., Any], output_loss: Callable[..., jax.Array]):
        self._model, self._output_loss = model, output_loss

    def __call__(self, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Features [B, H], gradients of the loss by the outputs [B, C], and losses [B]."""
        features, outputs = self._model(params, batch)
        total = lambda outputs: jnp.sum(self._output_loss(outputs, batch))
        slopes = jax.grad(total)(outputs)
        wide = lambda a: a.reshape(a.shape[0], -1).astype(jnp.promote_types(a.dtype, jnp.float32))
        return wide(features), wide(slopes), self._output_loss(outputs, batch)
