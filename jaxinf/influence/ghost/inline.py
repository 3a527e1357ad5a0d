"""A program as one flat list of equations: calls are inlined, short loops over layers unrolled.

Functions with a derivative rule of their own (`custom_jvp`, `custom_vjp`) stay whole: inlined,
they would lose the rule, and with it the gradient that the user's training saw.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

# the parameter of each call that holds what is called
_CALLS = {
    "pjit": "jaxpr",
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
# A loop over a model's layers is unrolled, so that each layer is seen; a long one is not.
_UNROLLED = 32


def flatten(fn: Callable[..., Any], *args: Any) -> ClosedJaxpr:
    """Trace `fn(*args)` (flat lists of arrays, arrays or shapes) and inline every call in it."""
    closed = jax.make_jaxpr(fn)(*args)
    run = lambda *values: _run(closed.jaxpr, closed.consts, values)
    return jax.make_jaxpr(run)(*args)


def bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Run one equation on other values; always a list of outputs."""
    settings = eqn.primitive.get_bind_params(eqn.params)
    # jax 0.7 hands functions over apart from the rest
    functions, settings = settings if isinstance(settings, tuple) else ((), settings)
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*functions, *values, **settings)
    return list(found) if eqn.primitive.multiple_results else [found]


def read(env: dict[Any, Any], atom: Any) -> Any:
    """Value of a variable or a literal."""
    return atom.val if isinstance(atom, Literal) else env[atom]


def _run(jaxpr: Any, consts: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(env, atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name in _CALLS:
            outputs = _run(*_opened(eqn.params[_CALLS[name]]), inputs)
        elif name == "scan" and eqn.params["length"] <= _UNROLLED:
            outputs = _unroll(eqn.params, inputs)
        else:
            outputs = bind(eqn, inputs)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


def _unroll(settings: dict[str, Any], inputs: list[Any]) -> list[Any]:
    consts, carry, stacked = _parts(settings, inputs)
    num_carry, body = len(carry), _opened(settings["jaxpr"])
    steps = range(settings["length"])
    outputs: list[Any] = [None] * settings["length"]
    for step in reversed(steps) if settings["reverse"] else steps:
        rows = [lax.index_in_dim(a, step, keepdims=False) for a in stacked]
        found = _run(*body, [*consts, *carry, *rows])
        carry, outputs[step] = found[:num_carry], found[num_carry:]
    if not outputs or not outputs[0]:
        return list(carry)
    return [*carry, *(jax.numpy.stack(parts) for parts in zip(*outputs, strict=True))]


def _parts(settings: dict[str, Any], inputs: list[Any]) -> tuple[list[Any], ...]:
    """What a scan closes over, carries and goes through."""
    if "num_consts" in settings:
        first = settings["num_consts"]
        second = first + settings["num_carry"]
        return inputs[:first], inputs[first:second], inputs[second:]
    # jax 0.12 groups the operands in a tree
    return tuple(list(part) for part in settings["ft_in"].update(inputs).unpack())


def _opened(inner: Any) -> tuple[Any, Sequence[Any]]:
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
