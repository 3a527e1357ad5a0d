"""Forward mode along factored directions: each layer is moved by (x Xᵀ)Δ, not by a kernel."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.influence.ghost.capture import in_blocks, prepare, shapes_of
from jaxinf.influence.ghost.contract import Factors
from jaxinf.influence.ghost.scores import MixedDirections, crossing_tangents
from jaxinf.influence.ghost.trace import trace
from jaxinf.influence.ghost.uses import Linear, find_uses
from jaxinf.typing import Batch, Params


def factored_derivatives(
    loss: Partial,
    params: Params,
    directions: MixedDirections,
    batch: Batch,
    chunk: int | None = None,
    rows: int | None = None,
) -> Float[jax.Array, "K B"]:
    """`directional_derivatives` along directions some of whose kernels are factors.

    Forward-only: each direction costs one forward pass and, in each factored layer, about
    T·R (I + O) instead of T·I·O for the second.

    Args:
        loss: per-example loss, as from `scoring_loss`.
        params: where to differentiate.
        directions: from the query side, leading axis K.
        batch: leading axis B.
        chunk: how many directions share one primal pass; None: all.
        rows: how many examples pass through the model at once; None: all.

    Raises:
        NotTraceable: the loss does not depend on the example.
    """
    taken = trace(loss, params, shapes_of(batch))
    prepared = prepare(taken, loss, params)
    tangents = crossing_tangents(taken, loss, params, directions)
    forms: dict[int, tuple[Any, Any, Any]] = {}
    for use in find_uses(taken):
        if isinstance(use, Linear) and isinstance(tangents.get(use.variable), Factors):
            for site, form in zip(use.sites, use.forms, strict=True):
                forms[site] = (use.variable, form, taken.equation(taken.sites[site]).outvars[0])
    dense = [v for v in taken.crossing if v in tangents and not isinstance(tangents[v], Factors)]
    values = dict(zip(taken.crossing, prepared.crossing, strict=True))

    def block(batch: Batch) -> jax.Array:
        examples = jax.tree.leaves(batch)

        def along(direction: dict[Any, Any]) -> jax.Array:
            def losses(size: jax.Array, some: list[Any]) -> jax.Array:
                at = values | dict(zip(dense, some, strict=True))
                crossing = [at[v] for v in taken.crossing]

                def change(site: int, inputs: list[Any], outputs: list[Any]) -> list[Any]:
                    if site not in forms:
                        return outputs
                    variable, form, leaving = forms[site]
                    moved = _moved(form, inputs, direction[variable], leaving.aval)
                    return [_push(outputs[0], size, moved.astype(outputs[0].dtype))]

                one = lambda example: taken.loss(crossing, prepared.needed, example, change)
                return jax.vmap(one)(examples)

            # the step is of size 0, and grows at rate 1
            none, whole = jnp.zeros(()), jnp.ones(())
            tangent = [direction[v] for v in dense]
            return jax.jvp(losses, (none, [values[v] for v in dense]), (whole, tangent))[1]

        held = {v: tangents[v] for v in taken.crossing if v in tangents}
        order = list(held)
        run = lambda parts: along(dict(zip(order, parts, strict=True)))
        parts = [held[v] for v in order]
        count = jax.tree.leaves(parts)[0].shape[0]
        if chunk is None or chunk >= count:
            return jax.vmap(run)(parts).T
        return lax.map(run, parts, batch_size=None if chunk == 1 else chunk).T

    return in_blocks(block, batch, rows).T


@jax.custom_jvp
def _push(leaving: jax.Array, size: jax.Array, moved: jax.Array) -> jax.Array:
    """`leaving + size · moved` at size 0: the same primal pass for all directions."""
    return leaving


@_push.defjvp
def _push_rule(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    leaving, _, moved = primals
    return leaving, tangents[0] + tangents[1].astype(moved.dtype) * moved


def _moved(form: Any, inputs: list[Any], factors: Factors, leaving: Any) -> jax.Array:
    """(x Xᵀ)Δ in the layout of what leaves the layer; x is held still."""
    x = lax.stop_gradient(form.entering(inputs))
    alike = jnp.einsum("sti,sri->str", x, factors.entering)
    moved = jnp.einsum("str,sro->sto", alike, factors.slopes)
    like = jax.ShapeDtypeStruct(leaving.shape, moved.dtype)
    return jax.linear_transpose(form.slopes, like)(moved)[0]
