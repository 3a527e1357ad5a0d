"""What a query is asked about: its loss, or its margin, the log-odds of the correct class."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.typing import Batch, Params, PerExampleLoss

Measure: TypeAlias = Literal["loss", "margin"] | PerExampleLoss
"""`"loss"`, `"margin"`, or a function like a loss, `(params, batch) -> float[B]`, to lower."""


def as_measure(loss: Partial, measure: Measure) -> Partial:
    """The function that the query side differentiates, as a pytree.

    Args:
        loss: per-example loss.
        measure: see `Measure`; `"margin"` takes the loss for a cross-entropy.

    Raises:
        InputError: for an unknown measure.
    """
    if callable(measure):
        return measure if isinstance(measure, Partial) else Partial(measure)
    if measure not in ("loss", "margin"):
        raise InputError(f"measure must be 'loss', 'margin' or a function, not {measure!r}")
    return loss if measure == "loss" else Partial(negative_margin, loss)


def measure_name(measure: Measure) -> str:
    """What to call it in the name of a method.

    Example:
        >>> measure_name("margin"), measure_name(lambda params, batch: batch)
        ('margin', 'function')
    """
    return "function" if callable(measure) else measure


def negative_margin(loss_fn: PerExampleLoss, params: Params, batch: Batch) -> jax.Array:
    """Minus the log-odds of the correct class, `log((1 − p) / p)`, from its cross-entropy `−log p`.

    Its gradient is the loss gradient over 1 − p: well-fitted examples count for as much as the
    others. A loss below the dtype's resolution (p rounds to 1) is held there, and has no gradient.

    Args:
        loss_fn: cross-entropy in nats, `(params, batch) -> float[B]`.
        params: its parameters.
        batch: leading axis B.

    Returns:
        float[B]; lower is a more confident, correct prediction.

    Example:
        >>> fair = lambda params, batch: jnp.log(batch["classes"])
        >>> negative_margin(fair, (), {"classes": jnp.array([2.0, 3.0])}).round(3).tolist()
        [0.0, 0.693...]
    """
    losses = loss_fn(params, batch)
    smallest = jnp.finfo(losses.dtype).eps
    return jnp.log(jnp.expm1(jnp.maximum(losses, smallest)))


def doubt(losses: jax.Array) -> jax.Array:
    """1 − p, the probability of all the other classes, from the cross-entropy `−log p`.

    Example:
        >>> abs(doubt(jnp.log(jnp.array([1.0, 2.0])))).round(3).tolist()
        [0.0, 0.5]
    """
    return -jnp.expm1(-losses)
