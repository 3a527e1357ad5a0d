"""Ways of asking which sentences taught an answer, by name."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax

from jaxinf.applications.language.by_token import Aggregate, by_token
from jaxinf.applications.language.losses import causal_lm_loss
from jaxinf.errors import InputError
from jaxinf.influence import (
    Attributor,
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    influence_function,
    normalise_by_gradient_norm,
    normalise_by_loss,
    representation_similarity,
    trak,
)
from jaxinf.typing import Batch, Params

TextMethod: TypeAlias = Literal[
    "by-token",
    "best-token",
    "preconditioned",
    "forward-inf",
    "forward-inf-jvp",
    "grad-dot",
    "grad-cos",
    "trak",
    "hidden-states",
]
"""Beside BM25, which is always there."""

METHODS: tuple[TextMethod, ...] = get_args(TextMethod)


class Built(NamedTuple):
    """A method ready to run.

    Attributes:
        attributor: what scores.
        followed: the attributor before it is normalised, whose scores split over tokens; None
            where they do not.
        by_answer: whether queries are asked by their answer's tokens alone; else by all.
        weighted: whether the queries' tokens are brought to unit length (`unit_weights`).
    """

    attributor: Attributor
    followed: Attributor | None
    by_answer: bool = True
    weighted: bool = False


def build_method(
    name: TextMethod,
    module: Any,
    *,
    key: jax.Array | None = None,
    damping: float = 0.1,
    num_probes: int = 32,
    learning_rate: float = 1e-4,
    steps: int = 1,
    projection_dim: int = 2048,
) -> Built:
    """Make a method for a causal language model.

    Sign: positive = a proponent, training on the sentence makes the answer likelier; for
    `"hidden-states"`, higher = more alike.

    Args:
        name: `"by-token"`, what the tokens of a sentence and of the whole question share, each
            token's gradient at unit length; `"best-token"`, what one token of a sentence shares
            with the answer (both: `by_token`); `"preconditioned"`, the answer's gradient over the
            training set's curvature (EK-FAC), over an estimate of each sentence's gradient norm;
            `"forward-inf"`, Adam's steps on the answer, the change of each sentence's loss
            relative to that loss; `"forward-inf-jvp"`, the limit of a small plain step, the same
            way. All of these take forward passes alone on the training side. `"grad-dot"`,
            `"grad-cos"` and `"trak"` take gradients; `"hidden-states"` is the cosine of mean
            hidden states.
        module: a `CausalLM`, or what is applied like it.
        key: for random probes and projections; default key 0.
        damping: of the curvature, in units of its mean eigenvalue.
        num_probes: random directions that gradient norms are estimated by.
        learning_rate: of `"forward-inf"`.
        steps: of `"forward-inf"`.
        projection_dim: of `"trak"`.

    Raises:
        InputError: for an unknown name.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> build_method("grad-cos", module).attributor.name
        'grad_cos(auto)'
    """
    key = jax.random.key(0) if key is None else key
    loss = causal_lm_loss(module)

    def relative(attributor: Attributor) -> Built:
        return Built(normalise_by_loss(attributor, loss, floor=1e-3), attributor)

    def preconditioned() -> Built:
        inner = influence_function(
            loss,
            solver="ekfac",
            curvature="fisher",
            damping=damping,
            damping_unit="mean_eigenvalue",
            scorer="jvp",
        )
        divided = normalise_by_gradient_norm(inner, loss, num_probes=num_probes, key=key)
        return Built(divided, inner)

    def by_trak() -> Built:
        method = trak(
            loss,
            projection_dim=projection_dim,
            key=key,
            damping=damping,
            damping_unit="mean_eigenvalue",
        )
        return Built(method, None)

    def tokenwise(aggregate: Aggregate) -> Built:
        method = by_token(
            module, aggregate=aggregate, damping=damping, num_probes=num_probes, key=key
        )
        whole = aggregate == "mean"
        return Built(method, preconditioned().followed, not whole, whole)

    makers: dict[str, Callable[[], Built]] = {
        "by-token": lambda: tokenwise("mean"),
        "best-token": lambda: tokenwise("best"),
        "preconditioned": preconditioned,
        "forward-inf": lambda: relative(
            forward_inf(loss, optimizer=optax.adam(learning_rate), steps=steps)
        ),
        "forward-inf-jvp": lambda: relative(forward_inf_jvp(loss, scorer="jvp")),
        "grad-dot": lambda: Built(grad_dot(loss), grad_dot(loss, scorer="jvp")),
        "grad-cos": lambda: Built(grad_cos(loss), grad_dot(loss, scorer="jvp")),
        "trak": by_trak,
        "hidden-states": lambda: Built(_hidden_states(module), None, by_answer=False),
    }
    if name not in makers:
        raise InputError(f"method {name!r} is unknown: {', '.join(METHODS)}")
    return makers[name]()


@cache
def _hidden_states(module: Any) -> Attributor:
    """One per model's shape, whose calls share what was compiled."""
    return representation_similarity(mean_hidden_state(module))


def mean_hidden_state(module: Any) -> Callable[[Params, Batch], jax.Array]:
    """`(params, batch) -> float[B, width]`: the last layer's states, averaged over the mask.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> batch = {"tokens": jnp.zeros((3, 4), jnp.int32), "mask": jnp.ones((3, 4), bool)}
        >>> params = jax.jit(module.init)(jax.random.key(0), batch["tokens"])["params"]
        >>> mean_hidden_state(module)(params, batch).shape
        (3, 8)
    """

    def mean(params: Params, batch: Batch) -> jax.Array:
        hidden = module.apply({"params": params}, batch["tokens"], method="features")
        mask = batch["mask"].astype(hidden.dtype)
        total = jnp.sum(hidden * mask[:, :, None], axis=1)
        return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]

    return mean
