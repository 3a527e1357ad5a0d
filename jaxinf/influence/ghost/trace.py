"""What a loss does with its parameters, read off the program that jax traces from it.

One example's loss is traced, so that what is found holds for each example by itself. Its program
falls into two parts: what depends on the parameters alone (casts, transposes, slices, weight
standardisation: computed once, whatever the example), and the rest. Where a value crosses from
the first part into an equation of the second, the parameters are *used*. By the chain rule the
slope of the loss along a direction is the sum over the uses of

    ⟨∂loss / ∂(value used), derivative of that value along the direction⟩,

whatever the equation, and for whatever module it was written.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jax.tree_util import Partial

from jaxinf.influence.ghost.inline import bind, flatten, read
from jaxinf.typing import Batch, Params

# Rearrangements: the norm of what comes out is that of what went in.
_ISOMETRIES = {
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "rev",
    "copy",
    "copy_p",
    "name",
    "optimization_barrier",
    "sharding_constraint",
}


class NotTraceable(Exception):
    """The loss has no example-dependent program to take apart."""


@dataclass(frozen=True)
class Site:
    """An equation that parameters enter, and which of its operands they are."""

    number: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """A loss taken apart.

    Attributes:
        program: flat; its inputs are the loss's own arrays, the parameters, one example.
        counts: how many inputs are of each of the three kinds.
        ahead: numbers of the equations that no example enters.
        behind: numbers of the others.
        crossing: the variables through which parameters enter `behind`.
        needed: other variables of `ahead` that `behind` reads.
        sites: the equations that they enter.
        origin: for each crossing variable, the one leaf of params that it rearranges; else None.
        leaves_of: for each crossing variable, the leaves that it depends on.
    """

    program: ClosedJaxpr
    counts: tuple[int, int, int]
    ahead: tuple[int, ...]
    behind: tuple[int, ...]
    crossing: tuple[Any, ...]
    needed: tuple[Any, ...]
    sites: tuple[Site, ...]
    origin: dict[Any, int | None]
    leaves_of: dict[Any, frozenset[int]]

    def equation(self, site: Site) -> Any:
        """The equation at a site."""
        return self.program.jaxpr.eqns[site.number]

    def used(self, site: Site) -> tuple[Any, ...]:
        """The crossing variables that enter at a site."""
        eqn = self.equation(site)
        return tuple(eqn.invars[position] for position in site.positions)

    def values(self, carried: Sequence[Any], leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Run what no example enters: the crossing values, and the other values needed."""
        jaxpr = self.program.jaxpr
        env = dict(zip(jaxpr.constvars, self.program.consts, strict=True))
        env.update(zip(jaxpr.invars, [*carried, *leaves], strict=False))
        for number in self.ahead:
            eqn = jaxpr.eqns[number]
            outputs = bind(eqn, [read(env, atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [env[v] for v in self.crossing], [env[v] for v in self.needed]

    def loss(
        self,
        crossing: Sequence[Any],
        needed: Sequence[Any],
        example: Sequence[Any],
        change: Callable[[int, list[Any], list[Any]], list[Any]],
    ) -> jax.Array:
        """Run the rest on one example.

        `change` takes a site's number in `sites`, its operands and what leaves it, and returns
        what leaves it instead.
        """
        jaxpr = self.program.jaxpr
        env = dict(zip(self.crossing, crossing, strict=True))
        env.update(zip(self.needed, needed, strict=True))
        env.update(zip(jaxpr.invars[sum(self.counts[:2]) :], example, strict=True))
        at = {site.number: i for i, site in enumerate(self.sites)}
        for number in self.behind:
            eqn = jaxpr.eqns[number]
            inputs = [read(env, atom) for atom in eqn.invars]
            outputs = bind(eqn, inputs)
            if number in at:
                outputs = change(at[number], inputs, outputs)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return read(env, jaxpr.outvars[0])

    def moving(self, site: Site) -> list[int]:
        """The operands of a site that differ from example to example."""
        fixed = {*self.crossing, *self.needed}
        return [
            i
            for i, v in enumerate(self.equation(site).invars)
            if not isinstance(v, Literal) and v not in fixed
        ]


def trace(loss: Partial, params: Params, example: Batch) -> Trace:
    """Take a per-example loss apart.

    Args:
        loss: `(params, batch) -> float[B]`, as from `scoring_loss`.
        params: its parameters, as arrays or shapes.
        example: one example, without a leading axis, as arrays or shapes.

    Raises:
        NotTraceable: the loss does not depend on the example.
    """
    trees = [(loss, params, example)]
    flat, structure = jax.tree.flatten(trees[0])
    counts = tuple(len(jax.tree.leaves(tree)) for tree in trees[0])

    def one(*values: Any) -> jax.Array:
        loss, params, example = jax.tree.unflatten(structure, values)
        return loss(params, jax.tree.map(lambda a: a[None], example))[0]

    program = flatten(one, *flat)
    return _take_apart(program, (counts[0], counts[1], counts[2]))


def _take_apart(program: ClosedJaxpr, counts: tuple[int, int, int]) -> Trace:
    jaxpr = program.jaxpr
    fixed = {*jaxpr.constvars, *jaxpr.invars[: counts[0]]}
    leaves = jaxpr.invars[counts[0] : counts[0] + counts[1]]
    leaves_of: dict[Any, frozenset[int]] = {v: frozenset() for v in fixed}
    leaves_of.update({v: frozenset([i]) for i, v in enumerate(leaves)})
    origin: dict[Any, int | None] = {v: i for i, v in enumerate(leaves)}
    ahead, behind = [], []
    for number, eqn in enumerate(jaxpr.eqns):
        inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
        if not all(v in leaves_of for v in inputs) or _spreads(eqn, leaves_of):
            behind.append(number)
            continue
        ahead.append(number)
        depends = frozenset[int]().union(*(leaves_of[v] for v in inputs))
        leaves_of.update(dict.fromkeys(eqn.outvars, depends))
        if len(inputs) == 1 and _isometric(eqn):
            origin[eqn.outvars[0]] = origin.get(inputs[0])
    if isinstance(jaxpr.outvars[0], Literal) or jaxpr.outvars[0] in leaves_of:
        raise NotTraceable
    crossing: dict[Any, None] = {}
    needed: dict[Any, None] = {}
    sites = []
    for number in behind:
        eqn = jaxpr.eqns[number]
        positions = []
        for position, v in enumerate(eqn.invars):
            if isinstance(v, Literal) or v not in leaves_of:
                continue
            if leaves_of[v] and is_inexact(v):
                crossing[v] = None
                positions.append(position)
            else:
                needed[v] = None
        if positions and any(is_inexact(v) for v in eqn.outvars):
            sites.append(Site(number, tuple(positions)))
    return Trace(
        program,
        counts,
        tuple(ahead),
        tuple(behind),
        tuple(crossing),
        tuple(needed),
        tuple(sites),
        {v: origin.get(v) for v in crossing},
        {v: leaves_of[v] for v in crossing},
    )


def _spreads(eqn: Any, leaves_of: dict[Any, frozenset[int]]) -> bool:
    """Equations on parameters that are better run with the example.

    A bias spread over all positions is a large array for each direction, its sum over positions
    a small one for each example; and slopes of complex values have no one inner product.
    """
    depends = any(leaves_of.get(v) for v in eqn.invars if not isinstance(v, Literal))
    if not depends:
        return False
    if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in eqn.outvars):
        return True
    if eqn.primitive.name != "broadcast_in_dim":
        return False
    return math.prod(eqn.outvars[0].aval.shape) > math.prod(eqn.invars[0].aval.shape)


def _isometric(eqn: Any) -> bool:
    name, before, after = eqn.primitive.name, eqn.invars[0].aval, eqn.outvars[0].aval
    if name == "convert_element_type":
        return is_inexact(eqn.invars[0]) and is_inexact(eqn.outvars[0])
    if name == "broadcast_in_dim":
        return math.prod(before.shape) == math.prod(after.shape)
    return name in _ISOMETRIES


def is_inexact(value: Any) -> bool:
    """Whether a variable or an array is of floating-point or complex numbers."""
    shaped = getattr(value, "aval", value)
    dtype = shaped.dtype if hasattr(shaped, "dtype") else jnp.result_type(value)
    return jnp.issubdtype(dtype, jnp.inexact)
