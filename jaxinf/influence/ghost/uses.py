"""The uses of parameters that a trace found, by what they cost to contract."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from jaxinf.influence.ghost.linear import Convolution, Product, Sizes, as_linear
from jaxinf.influence.ghost.trace import Trace


@dataclass(frozen=True)
class Linear:
    """A kernel in products or convolutions; several that lay it out alike count as one."""

    variable: Any
    sites: tuple[int, ...]
    forms: tuple[Product | Convolution, ...]

    @property
    def sizes(self) -> Sizes:
        """S, T (of all sites together), I, O."""
        first = self.forms[0].sizes
        positions = sum(form.sizes.positions for form in self.forms)
        return Sizes(first.batch, positions, first.entering, first.leaving)


@dataclass(frozen=True)
class Lookup:
    """Rows of a table, gathered by the example's indices."""

    variable: Any
    site: int


@dataclass(frozen=True)
class Other:
    """Any other equation: its own reverse pass gives the example's gradient of what enters."""

    variables: tuple[Any, ...]
    site: int


Use = Linear | Lookup | Other


def find_uses(trace: Trace) -> list[Use]:
    """Every use of parameters in a loss, in the order of the program."""
    linear: dict[Any, list[tuple[int, Product | Convolution]]] = defaultdict(list)
    rest: list[Use] = []
    for number, site in enumerate(trace.sites):
        eqn, variables = trace.equation(site), trace.used(site)
        form = as_linear(eqn, site.positions)
        if form is not None:
            linear[variables[0], form.layout].append((number, form))
        elif eqn.primitive.name == "gather" and site.positions == (0,):
            rest.append(Lookup(variables[0], number))
        else:
            rest.append(Other(variables, number))
    found = [
        Linear(variable, *map(tuple, zip(*pairs, strict=True)))
        for (variable, _), pairs in linear.items()
    ]
    return [*found, *rest]


def sole_uses(trace: Trace, uses: list[Use]) -> dict[int, Use]:
    """The leaves of params that one use alone sees, and only rearranged: leaf -> its use.

    The inner product of two examples' gradients of such a leaf is that of their gradients of
    what is used.
    """
    crossed, used = defaultdict(set), defaultdict(list)
    for variable in trace.crossing:
        for leaf in trace.leaves_of[variable]:
            crossed[leaf].add(variable)
    for use in uses:
        for variable in use.variables if isinstance(use, Other) else (use.variable,):
            used[variable].append(use)
    return {
        leaf: used[variable][0]
        for leaf, (variable, *others) in crossed.items()
        if not others and trace.origin[variable] == leaf and len(used[variable]) == 1
    }
