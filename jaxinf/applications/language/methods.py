"""Ways of asking which sentences taught an answer, by name."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.applications.language.by_token import (
    Aggregate,
    by_token,
    shares_by_token,
    unit_weights,
)
from jaxinf.applications.language.losses import causal_lm_loss
from jaxinf.applications.language.parts import TokenShares, token_shares
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
from jaxinf.influence.normalise import NormalisedState
from jaxinf.typing import Batch, Params, PerExampleLoss

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
    "whitened-states",
]
"""Beside BM25, which is always there."""

METHODS: tuple[TextMethod, ...] = get_args(TextMethod)

ASKED_WHOLE: frozenset[TextMethod] = frozenset({"by-token", "hidden-states", "whitened-states"})
"""Those that look at all tokens of a question with its answer; the others at the answer's alone."""


class Built(NamedTuple):
    """A method ready to run.

    Attributes:
        attributor: what scores.
        shares: those scores taken apart into the tokens'; None where they do not split.
        weighted: whether the queries' tokens are brought to unit length (`weigh`).
    """

    attributor: Attributor
    shares: TokenShares | None
    weighted: bool = False


def build_method(
    name: TextMethod,
    module: Any,
    *,
    key: jax.Array | None = None,
    damping: float | None = None,
    num_probes: int = 32,
    learning_rate: float = 1e-4,
    steps: int = 1,
    projection_dim: int = 2048,
) -> Built:
    """Make a method for a causal language model.

    Sign: positive = a proponent, training on the sentence makes the answer likelier; for
    `"hidden-states"` and `"whitened-states"`, higher = more alike.

    Args:
        name: `"by-token"`, what the tokens of a sentence and of the whole question share, each
            token's gradient at unit length; `"best-token"`, what one token of a sentence shares
            with the answer (both: `by_token`); `"preconditioned"`, the answer's gradient over the
            training set's curvature (EK-FAC), over an estimate of each sentence's gradient norm;
            `"forward-inf"`, Adam's steps on the answer, the change of each sentence's loss
            relative to that loss; `"forward-inf-jvp"`, the limit of a small plain step, the same
            way. All of these take forward passes alone on the training side. `"grad-dot"`,
            `"grad-cos"` and `"trak"` take gradients; `"hidden-states"` is the cosine of mean
            hidden states, `"whitened-states"` that of the same less what all texts have in common
            (`representation_similarity(metric="whitened")`).
        module: a `CausalLM`, or what is applied like it.
        key: for random probes and projections; default key 0.
        damping: of the curvature, in units of its mean eigenvalue; None takes what the method was
            measured with: `by_token`'s own, and 0.1 for the others.
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
    strong = 0.1 if damping is None else damping

    def normalised(attributor: Attributor, divide: Callable[[Attributor], Attributor]) -> Built:
        return Built(divide(attributor), token_shares(attributor, loss, divide))

    def relative(attributor: Attributor) -> Built:
        return normalised(attributor, lambda a: normalise_by_loss(a, loss, floor=1e-3))

    def preconditioned() -> Built:
        inner = influence_function(
            loss,
            solver="ekfac",
            curvature="fisher",
            damping=strong,
            damping_unit="mean_eigenvalue",
            scorer="jvp",
        )
        return normalised(
            inner, lambda a: normalise_by_gradient_norm(a, loss, num_probes=num_probes, key=key)
        )

    def by_trak() -> Built:
        method = trak(
            loss,
            projection_dim=projection_dim,
            key=key,
            damping=strong,
            damping_unit="mean_eigenvalue",
        )
        return Built(method, None)

    def tokenwise(aggregate: Aggregate) -> Built:
        same: dict[str, Any] = {
            "aggregate": aggregate, "damping": damping, "num_probes": num_probes, "key": key,
        }  # fmt: skip
        weighted = aggregate == "mean"
        return Built(by_token(module, **same), shares_by_token(module, **same), weighted)

    makers: dict[str, Callable[[], Built]] = {
        "by-token": lambda: tokenwise("mean"),
        "best-token": lambda: tokenwise("best"),
        "preconditioned": preconditioned,
        "forward-inf": lambda: relative(
            forward_inf(loss, optimizer=optax.adam(learning_rate), steps=steps)
        ),
        "forward-inf-jvp": lambda: relative(forward_inf_jvp(loss, scorer="jvp")),
        "grad-dot": lambda: Built(grad_dot(loss), token_shares(grad_dot(loss, scorer="jvp"), loss)),
        "grad-cos": lambda: Built(grad_cos(loss), _shares_of_cosine(loss)),
        "trak": by_trak,
        "hidden-states": lambda: Built(_hidden_states(module, "cosine"), None),
        "whitened-states": lambda: Built(_hidden_states(module, "whitened"), None),
    }
    if name not in makers:
        raise InputError(f"method {name!r} is unknown: {', '.join(METHODS)}")
    return makers[name]()


def weigh(
    method: Built, module: Any, params: Params, queries: Batch, train: Batch
) -> tuple[Batch, Batch]:
    """Queries and training texts as the method takes them: with `weights`, where it has some.

    Args:
        method: from `build_method`.
        module: a `CausalLM`.
        params: its parameters.
        queries: `tokens` and `mask`, [K, T].
        train: `tokens` and `mask`, [N, T].
    """
    if not method.weighted:
        return queries, train
    asked = {**queries, "weights": unit_weights(module, params, queries)}
    return asked, {**train, "weights": np.ones(train["mask"].shape, np.float32)}


def _shares_of_cosine(loss: PerExampleLoss) -> TokenShares:
    """Shares of `grad_cos`: products of gradients over the norms of both."""
    plain = token_shares(
        grad_dot(loss, scorer="jvp"), loss, lambda a: normalise_by_gradient_norm(a, loss)
    )

    def score(state: NormalisedState, batch: Batch) -> jax.Array:
        norms = state.inner.diagnostics["gradient_norm"][:, None, None]
        return jnp.where(norms > 0, plain.score(state, batch) / jnp.where(norms > 0, norms, 1), 0)

    return TokenShares(plain.prepare, score)


@cache
def _hidden_states(module: Any, metric: Literal["cosine", "whitened"]) -> Attributor:
    """One per model's shape, whose calls share what was compiled."""
    return representation_similarity(mean_hidden_state(module), metric=metric)


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
