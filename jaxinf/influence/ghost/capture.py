"""What enters and leaves every use of the parameters: one forward and one backward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal
from jax.tree_util import Partial

from jaxinf.influence.ghost.inline import bind
from jaxinf.influence.ghost.linear import Sizes
from jaxinf.influence.ghost.trace import Trace, is_inexact
from jaxinf.influence.ghost.uses import Linear
from jaxinf.typing import Batch, Params, PyTree


@dataclass(frozen=True)
class Prepared:
    """A trace with the values that no example enters."""

    trace: Trace
    crossing: list[Any]
    needed: list[Any]


@dataclass(frozen=True)
class Traffic:
    """Of each site, with a leading axis B: operands that differ by example, and slopes.

    The slopes are derivatives of each example's loss in what leaves the site.
    """

    operands: list[list[jax.Array]]
    slopes: list[list[jax.Array]]


def prepare(trace: Trace, loss: Partial, params: Params) -> Prepared:
    """Run what no example enters, once."""
    crossing, needed = trace.values(jax.tree.leaves(loss), jax.tree.leaves(params))
    return Prepared(trace, crossing, needed)


def capture(prepared: Prepared, batch: Batch) -> Traffic:
    """One forward and one backward pass of each example, with no gradient of a parameter."""
    trace = prepared.trace
    moving = [trace.moving(site) for site in trace.sites]
    probes = [
        [jnp.zeros(v.aval.shape, v.aval.dtype) for v in trace.equation(s).outvars if is_inexact(v)]
        for s in trace.sites
    ]

    def one(example: list[Any]) -> tuple[Any, Any]:
        def total(probes: Any) -> tuple[jax.Array, Any]:
            operands: list[list[Any]] = [[] for _ in probes]

            def change(number: int, inputs: list[Any], outputs: list[Any]) -> list[Any]:
                operands[number] = [inputs[position] for position in moving[number]]
                added = iter(probes[number])
                return [o + next(added) if is_inexact(o) else o for o in outputs]

            loss = trace.loss(prepared.crossing, prepared.needed, example, change)
            return loss, operands

        loss, pull, operands = jax.vjp(total, probes, has_aux=True)
        return operands, pull(jnp.ones((), loss.dtype))[0]

    return Traffic(*jax.vmap(one)(jax.tree.leaves(batch)))


def entering(use: Linear, traffic: Traffic) -> jax.Array:
    """[B, S, T, I]."""
    parts = []
    for site, form in zip(use.sites, use.forms, strict=True):
        # the one operand that differs lies opposite the kernel, which `form` does not look at
        moved = traffic.operands[site]
        parts.append(jax.vmap(lambda x, form=form: form.entering([x, x]))(moved[0]))
    return jnp.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def leaving(use: Linear, traffic: Traffic) -> jax.Array:
    """Slopes [B, S, T, O]."""
    pairs = zip(use.sites, use.forms, strict=True)
    parts = [jax.vmap(form.slopes)(traffic.slopes[site][0]) for site, form in pairs]
    return jnp.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def local_gradient(
    prepared: Prepared, number: int, operands: list[Any], slopes: list[Any]
) -> list[jax.Array]:
    """One example's gradients of the values used at a site, by that equation's reverse pass."""
    trace = prepared.trace
    site = trace.sites[number]
    eqn = trace.equation(site)
    fixed = dict(zip(trace.crossing, prepared.crossing, strict=True))
    fixed.update(zip(trace.needed, prepared.needed, strict=True))
    moved = iter(operands)
    values = [
        v.val if isinstance(v, Literal) else fixed[v] if v in fixed else next(moved)
        for v in eqn.invars
    ]

    def run(*used: Any) -> list[Any]:
        inputs = list(values)
        for position, value in zip(site.positions, used, strict=True):
            inputs[position] = value
        return [o for o in bind(eqn, inputs) if is_inexact(o)]

    pull = jax.vjp(run, *(values[position] for position in site.positions))[1]
    return list(pull(list(slopes)))


def map_rows(fn: Callable[..., PyTree], rows: PyTree, per_row: float, budget: float) -> PyTree:
    """Vectorise `fn` over a leading axis, as many rows at once as `budget` bytes hold."""
    count = jax.tree.leaves(rows)[0].shape[0]
    chunk = int(max(1, min(count, budget // max(per_row, 1))))
    try:
        if chunk == count:
            return jax.vmap(fn)(rows)
        return lax.map(fn, rows, batch_size=None if chunk == 1 else chunk)
    except NotImplementedError:
        # jax 0.7 cannot vmap the gradient of a convolution: one row at a time there
        return lax.map(fn, rows)


def in_blocks(fn: Callable[[PyTree], PyTree], batch: PyTree, size: int | None) -> PyTree:
    """Apply `fn`, which takes and returns trees with a leading axis B, to blocks of rows."""
    count = jax.tree.leaves(batch)[0].shape[0]
    if size is None or size >= count:
        return fn(batch)
    whole = count - count % size
    split = lambda a: a[:whole].reshape(whole // size, size, *a.shape[1:])
    found = lax.map(fn, jax.tree.map(split, batch))
    found = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), found)
    if whole == count:
        return found
    rest = fn(jax.tree.map(lambda a: a[whole:], batch))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)


def wide(dtype: Any) -> Any:
    """float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)


def bytes_of(sizes: Sizes, entries: int) -> float:
    """Bytes of so many numbers at S batches."""
    return 4.0 * sizes.batch * entries


def shapes_of(tree: Sequence[Any] | PyTree) -> PyTree:
    """Shapes and dtypes of one example of a batch."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a)[1:], jnp.result_type(a)), tree)
