"""What a loss computes, counted on its program: operations and bytes of one example."""

import math
from dataclasses import dataclass
from typing import Any

from jax.extend.core import Literal

from jaxinf.influence.ghost.linear import Sizes
from jaxinf.influence.ghost.routes import Route, cheapest, routes
from jaxinf.influence.ghost.trace import Trace, is_inexact
from jaxinf.influence.ghost.uses import Linear, Lookup, Use, find_uses, sole_uses

_MOVES = {
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "slice", "concatenate", "pad", "gather",
    "dynamic_slice", "rev", "copy", "iota", "convert_element_type", "stop_gradient", "select_n",
}  # fmt: skip
_NO_JVP = ("custom_vjp_call", "custom_vjp_call_jaxpr")


@dataclass(frozen=True)
class Work:
    """Operations, by how fast machines do them.

    Attributes:
        products: in matrix products.
        convolutions: in convolutions.
        kernel_gradients: in reverse-mode convolutions, one kernel gradient per example.
        elements: element by element.
    """

    products: float = 0.0
    convolutions: float = 0.0
    kernel_gradients: float = 0.0
    elements: float = 0.0

    @property
    def flops(self) -> float:
        """All together."""
        return self.products + self.convolutions + self.kernel_gradients + self.elements

    def __add__(self, other: "Work") -> "Work":
        """Sum."""
        return Work(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __mul__(self, factor: float) -> "Work":
        """So many times."""
        return Work(*(factor * a for a in self._parts()))

    def _parts(self) -> tuple[float, ...]:
        return (self.products, self.convolutions, self.kernel_gradients, self.elements)


@dataclass(frozen=True)
class Counts:
    """Of one example.

    Attributes:
        forward: a forward pass.
        tangent: what one direction adds to it in forward mode.
        backward: to the slopes of every layer, with no gradient of a parameter.
        gradients: of the parameters, beyond that.
        live_bytes: most that is alive at once in a forward pass.
        saved_bytes: all that a forward pass makes, which a backward pass may keep.
        parameters: P.
        uses: of the parameters.
        sole: leaf -> its only use, where it has one.
        forward_mode: whether forward mode takes the loss.
        reverse_mode: whether reverse mode does.
        shapes: of what leaves each site.
    """

    forward: Work
    tangent: Work
    backward: Work
    gradients: Work
    live_bytes: float
    saved_bytes: float
    parameters: int
    uses: tuple[Use, ...]
    sole: dict[int, Use]
    forward_mode: bool
    reverse_mode: bool
    shapes: dict[int, list[tuple[int, ...]]]

    def kernel_work(self, leaf: int) -> tuple[Sizes, bool]:
        """Sizes of the product that a leaf is the kernel of, and whether it is a convolution."""
        use = self.sole[leaf]
        assert isinstance(use, Linear)
        return use.sizes, use.forms[0].layout[0] == "conv"

    def contraction(
        self, num_directions: int, ranks: dict[int, int], budget: float
    ) -> tuple[Work, float, float]:
        """What all ghost contractions take.

        Returns:
            Operations; the most bytes that one of them makes for an example; and the most that
            laying out directions anew takes.
        """
        by_use = {id(self.sole[leaf]): rank for leaf, rank in ranks.items()}
        flops, most = 0.0, 0.0
        other, laid_out = 0.0, 0.0
        for use in self.uses:
            if isinstance(use, Linear):
                found: list[Route] = routes(use.sizes, num_directions, by_use.get(id(use)))
                route = cheapest(found, budget)
                flops, most = flops + route.flops, max(most, route.bytes)
                sizes = use.sizes
                if route.name in ("leaving", "entering"):
                    laid_out = max(laid_out, 4.0 * num_directions * sizes.kernel)
                if use.forms[0].layout[0] == "conv":  # what the window covers is laid out
                    most = max(most, 4.0 * sizes.batch * sizes.positions * sizes.entering)
            elif isinstance(use, Lookup):
                looked_up = math.prod(self.shapes[use.site][0])
                flops += 2.0 * num_directions * looked_up
                most = max(most, 4.0 * num_directions * looked_up)
            else:
                size = sum(v.aval.size for v in use.variables)
                flops += 2.0 * num_directions * size
                other += sum(math.prod(shape) for shape in self.shapes[use.site])
                most = max(most, 4.0 * size)
        return Work(products=flops, elements=other), most, laid_out


def count(taken: Trace, parameters: int) -> Counts:
    """Count one example's operations and bytes.

    Args:
        taken: the trace of the loss.
        parameters: P.
    """
    jaxpr = taken.program.jaxpr
    moving = set(taken.crossing)  # carries a tangent
    forward = tangent = backward = gradients = Work()
    sizes: dict[Any, float] = {}
    last: dict[Any, int] = {}
    for number in taken.behind:
        for v in jaxpr.eqns[number].invars:
            if not isinstance(v, Literal):
                last[v] = number
    live = most = saved = 0.0
    used_at = {site.number: site for site in taken.sites}
    names: set[str] = set()
    for number in taken.behind:
        eqn = jaxpr.eqns[number]
        work, name = _work(eqn), eqn.primitive.name
        _names(eqn, names)
        forward = forward + work
        operands = [v for v in eqn.invars if not isinstance(v, Literal) and v in moving]
        if operands and any(is_inexact(v) for v in eqn.outvars):
            moving.update(v for v in eqn.outvars if is_inexact(v))
            entered = set(used_at[number].positions) if number in used_at else set()
            of_params = sum(1 for v in operands if v in taken.leaves_of) if entered else 0
            heavy = name in ("dot_general", "conv_general_dilated")
            # a product has a term for each operand that moves; the rest about two operations
            tangent = tangent + work * (len(operands) if heavy else 2.0)
            backward = backward + work * (len(operands) - of_params if heavy else 2.0)
            if name == "conv_general_dilated":
                gradients = gradients + Work(kernel_gradients=work.convolutions * of_params)
            elif heavy:
                gradients = gradients + work * of_params
        for v in eqn.outvars:
            sizes[v] = float(v.aval.size * getattr(v.aval.dtype, "itemsize", 4))
            live += sizes[v]
        if name not in _MOVES:
            saved += sum(sizes[v] for v in eqn.outvars)
        most = max(most, live)
        for v in {v for v in eqn.invars if not isinstance(v, Literal)}:
            if last.get(v) == number and v in sizes:
                live -= sizes[v]
        live -= sum(sizes[v] for v in eqn.outvars if v not in last)
    uses = find_uses(taken)
    shapes = {
        i: [tuple(v.aval.shape) for v in taken.equation(site).outvars]
        for i, site in enumerate(taken.sites)
    }
    return Counts(
        forward,
        tangent,
        backward,
        gradients,
        most,
        saved,
        parameters,
        tuple(uses),
        sole_uses(taken, uses),
        not any(name in names for name in _NO_JVP),
        "while" not in names,
        shapes,
    )


def _work(eqn: Any) -> Work:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    size = float(sum(v.aval.size for v in eqn.outvars))
    if name == "dot_general":
        ((contracted, _), _) = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return Work(products=2.0 * out.size * math.prod(shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        kernel, spec = eqn.invars[1].aval, eqn.params["dimension_numbers"].rhs_spec
        return Work(convolutions=2.0 * out.size * kernel.size / kernel.shape[spec[0]])
    if name == "scan":
        return _inner_work(eqn) * float(eqn.params["length"])
    if any(True for _ in _inner(eqn)):
        return _inner_work(eqn)
    if name.startswith("reduce") or name.startswith("arg"):
        return Work(elements=float(eqn.invars[0].aval.size))
    return Work(elements=0.0 if name in _MOVES else size)


def _inner_work(eqn: Any) -> Work:
    total = Work()
    for jaxpr in _inner(eqn):
        for inner in jaxpr.eqns:
            total = total + _work(inner)
    return total


def _inner(eqn: Any) -> Any:
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _names(eqn: Any, found: set[str]) -> None:
    found.add(eqn.primitive.name)
    for jaxpr in _inner(eqn):
        for inner in jaxpr.eqns:
            _names(inner, found)
