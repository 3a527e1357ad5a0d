"""What the command line offers by name: influence methods, their normalisers, file formats."""

from enum import StrEnum
from typing import Any

import jax
import optax

from jaxinf.errors import InputError
from jaxinf.influence import (
    Attributor,
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    normalise_by_gradient_norm,
    normalise_by_loss,
    released_forward_inf,
)
from jaxinf.typing import PerExampleLoss


class Method(StrEnum):
    """A method; its value is what the user types."""

    FORWARD_INF = "forward-inf"
    FORWARD_INF_JVP = "forward-inf-jvp"
    GRAD_DOT = "grad-dot"
    GRAD_COS = "grad-cos"
    RELEASED = "released"


class Normalise(StrEnum):
    """What each training example's scores are divided by."""

    LOSS = "loss"
    GRADIENT_NORM = "gradient-norm"


class FileFormat(StrEnum):
    """File of the scores."""

    NPZ = "npz"
    PARQUET = "parquet"


def build_attributor(
    method: Method,
    loss_fn: PerExampleLoss,
    *,
    normalise: Normalise | None = None,
    learning_rate: float | None = None,
    steps: int = 1,
    stateful_loss: Any = None,
    seed: int = 0,
) -> Attributor:
    """Make the attributor that a name and its options stand for.

    Args:
        method: which.
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        normalise: divide each example's scores by its loss or its gradient norm.
        learning_rate: of the step on the query; None takes 1e-2 (SGD), and 5e-3 (Adam) for
            `released`.
        steps: how many steps on the query, for the two Forward-INF methods.
        stateful_loss: for `released`, which runs the model in train mode.
        seed: for the random inputs of `released`.

    Returns:
        An `Attributor`. With `released` it wants `params=(params, state)`.

    Raises:
        InputError: options that the method does not have, or a learning rate that is not
            positive.

    Example:
        >>> build_attributor(Method.GRAD_COS, lambda w, batch: batch["x"] @ w).name
        'grad_cos(auto)'
    """
    method = Method(method)
    has_step = method in (Method.FORWARD_INF, Method.FORWARD_INF_JVP)
    if learning_rate is not None:
        if not has_step and method is not Method.RELEASED:
            raise InputError(f"{method.value} takes no step: leave the learning rate out")
        if not learning_rate > 0:
            raise InputError(f"the learning rate is {learning_rate}: it must be positive")
    if steps != 1 and not has_step:
        raise InputError(f"{method.value} takes no number of steps: leave it at 1")
    if method is Method.RELEASED:
        if stateful_loss is None:
            raise InputError(
                "released runs the model in train mode: it needs a stateful_loss and a state, as "
                "made by jaxinf.adapters.stateful_from_linen"
            )
        if normalise is not None:
            raise InputError("released is the paper's recipe as it is: leave normalise out")
        rate = 5e-3 if learning_rate is None else learning_rate
        return released_forward_inf(stateful_loss, key=jax.random.key(seed), learning_rate=rate)
    sgd = optax.sgd(1e-2 if learning_rate is None else learning_rate)
    if method is Method.FORWARD_INF:
        attributor = forward_inf(loss_fn, optimizer=sgd, steps=steps)
    elif method is Method.FORWARD_INF_JVP:
        attributor = forward_inf_jvp(loss_fn, optimizer=sgd, steps=steps)
    elif method is Method.GRAD_DOT:
        attributor = grad_dot(loss_fn)
    else:
        attributor = grad_cos(loss_fn)
    if normalise is None:
        return attributor
    divide = normalise_by_loss if normalise == Normalise.LOSS else normalise_by_gradient_norm
    return divide(attributor, loss_fn)
