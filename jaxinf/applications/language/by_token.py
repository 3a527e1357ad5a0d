"""Influence token by token, each token's gradient at unit length.

A sentence's gradient is ruled by its hardest tokens, mostly names that nothing predicts, and those
say little of the fact. At unit length every token has one voice: the object in the answer's words,
the subject in the question's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxinf.applications.language.losses import (
    TokenNats,
    causal_lm_loss,
    sequence_loss,
    token_nats,
)
from jaxinf.applications.language.parts import TokenShares, token_scores
from jaxinf.errors import InputError, check_count
from jaxinf.influence import Attributor, influence_function
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.inverse_hessian import ekfac
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree

Aggregate: TypeAlias = Literal["mean", "best"]

DAMPING: dict[Aggregate, float] = {"mean": 0.001, "best": 0.01}
"""Of the curvature, in units of its mean eigenvalue: as the development part of `benchmarks.facts`
prefers. Weak damping takes off what all texts have in common, as whitening does."""


def by_token(
    module: Any,
    *,
    aggregate: Aggregate = "mean",
    damping: float | None = None,
    num_probes: int = 32,
    key: jax.Array | None = None,
    query_chunk: int | None = 16,
) -> Attributor:
    """`⟨∇ℓ_t(z), C⁻¹ g(q)⟩ / ‖∇ℓ_t(z)‖` of each token t of a sentence, C the EK-FAC curvature.

    g(q) is the gradient of the query's loss; with `unit_weights` in the queries' `weights`, that of
    its tokens at unit length. Norms of training tokens are estimated from random directions, so
    that the training side is forward passes alone.

    Sign: positive = being taught to predict these tokens here lowers the query's loss (a
    proponent). Scores are relative: only their order within a query means something.

    Cost: (1 + 2K) + (1 + 2 num_probes) forward passes per training example.

    Args:
        module: a `CausalLM`.
        aggregate: `"mean"` over the tokens that count, for queries about a whole text; `"best"`,
            the highest one, for queries about an answer.
        damping: of the curvature, in units of its mean eigenvalue; None takes `DAMPING`'s.
        num_probes: random directions; the relative error of a norm is about 1 / √(2 num_probes).
        key: of the probes; default key 0.
        query_chunk: how many queries share one pass.

    Returns:
        An `Attributor` over `tokens`, `mask` and optionally `weights`, [B, T], whose `prepare`
        needs the training set.

    Raises:
        InputError: for an unknown aggregate, or no probes.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> by_token(CausalLM(LanguageConfig(11, 8, 8, 1, 2))).name
        'by_token(mean, 0.001, 32 probes)'
    """
    damping = _damping(aggregate, damping)
    inner, cosines = _tokenwise(module, aggregate, damping, num_probes, key, query_chunk)

    def score(state: DirectionState, batch: Batch) -> jax.Array:
        return aggregate_tokens(cosines(state, batch), batch, aggregate)

    inner_cost = inner.forward_passes
    return Attributor(
        inner.prepare,
        score,
        inner.diagnose,
        inner.loss_fn,
        inner_cost and (lambda k: inner_cost(k) + 1.0 + 2.0 * num_probes),
        f"by_token({aggregate}, {damping:g}, {num_probes} probes)",
    )


def shares_by_token(
    module: Any,
    *,
    aggregate: Aggregate = "mean",
    damping: float | None = None,
    num_probes: int = 32,
    key: jax.Array | None = None,
    query_chunk: int | None = 16,
) -> TokenShares:
    """What the tokens of a sentence have in the scores of `by_token`, called in the same way.

    With `"mean"` a share is the token's slope over its norm, over the number of tokens that count:
    they sum to the score. With `"best"` it is not divided, and the highest one is the score.

    Sign: as `by_token`'s.

    Args:
        module: as in `by_token`.
        aggregate: as in `by_token`.
        damping: as in `by_token`.
        num_probes: as in `by_token`.
        key: as in `by_token`.
        query_chunk: as in `by_token`.

    Raises:
        InputError: as `by_token`.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> shares_by_token(module, aggregate="best").reduction
        'max'
    """
    damping = _damping(aggregate, damping)
    inner, cosines = _tokenwise(module, aggregate, damping, num_probes, key, query_chunk)
    if aggregate == "best":
        return TokenShares(inner.prepare, cosines, "max")

    def shares(state: DirectionState, batch: Batch) -> jax.Array:
        return cosines(state, batch) / _how_many(batch)[None, :, None]

    return TokenShares(inner.prepare, shares, "sum")


def _damping(aggregate: Aggregate, damping: float | None) -> float:
    if aggregate not in get_args(Aggregate):
        raise InputError(f"aggregate must be 'mean' or 'best', not {aggregate!r}")
    return DAMPING[aggregate] if damping is None else damping


def _tokenwise(
    module: Any,
    aggregate: Aggregate,
    damping: float,
    num_probes: int,
    key: jax.Array | None,
    query_chunk: int | None,
) -> tuple[Attributor, Callable[[DirectionState, Batch], Float[jax.Array, "K B T"]]]:
    """The attributor whose slopes are taken, and those of the tokens over their norms."""
    check_count(num_probes, "num_probes")
    probes = jax.random.key(0) if key is None else key
    loss = causal_lm_loss(module, reduction="sum")
    inner = influence_function(
        loss,
        solver=ekfac(with_residual=False),
        curvature="fisher",
        damping=damping,
        damping_unit="mean_eigenvalue",
        scorer="jvp",
        query_chunk=query_chunk,
    )

    def cosines(state: DirectionState, batch: Batch) -> jax.Array:
        return token_cosines(inner, loss, state, batch, key=probes, num_probes=num_probes)

    return inner, cosines


def token_cosines(
    attributor: Attributor,
    loss_fn: PerExampleLoss,
    state: PyTree,
    batch: Batch,
    *,
    key: jax.Array,
    num_probes: int = 32,
) -> Float[jax.Array, "K B T"]:
    """`token_scores` over an estimate of the norm of each token's gradient.

    Sign: as the attributor's. Cost: that of `token_scores` and 1 + 2 num_probes forward passes.

    Args:
        attributor: as in `token_scores`, first order: `grad_dot` or `influence_function` with
            `scorer="jvp"`.
        loss_fn: the loss it was made with, from `causal_lm_loss` with `reduction="sum"`.
        state: what its `prepare` returned.
        batch: `tokens`, `mask` and optionally `weights`, [B, T].
        key: of the probes.
        num_probes: random directions.

    Returns:
        float[K, B, T], 0 where nothing counts.
    """
    shares = token_scores(attributor, loss_fn, state, batch)
    nats = sequence_loss(loss_fn).nats
    norms = estimated_token_norms(nats, state.params, batch, key, num_probes)
    known = _counted(batch) & (norms > 0)
    return jnp.where(known[None], shares / jnp.where(known, norms, 1)[None], 0)


def aggregate_tokens(
    cosines: Float[jax.Array, "K B T"], batch: Batch, aggregate: Aggregate
) -> Float[jax.Array, "K B"]:
    """`"mean"` over a text's tokens that count, or the `"best"` of them."""
    if aggregate == "mean":
        return jnp.sum(cosines, axis=2) / _how_many(batch)[None]
    return jnp.max(jnp.where(_counted(batch)[None], cosines, -jnp.inf), axis=2)


def _how_many(batch: Batch) -> jax.Array:
    return jnp.maximum(jnp.sum(_counted(batch), axis=1), 1)


def _counted(batch: Batch) -> jax.Array:
    return jnp.asarray(batch["mask"]).at[:, 0].set(False)


def estimated_token_norms(
    nats: TokenNats, params: Params, batch: Batch, key: jax.Array, num_probes: int
) -> Float[jax.Array, "B T"]:
    """Norm of the gradient of each token's loss by forward passes: ‖g‖² = E[(g·v)²], v ~ N(0, I).

    Args:
        nats: from `token_nats`.
        params: where.
        batch: `tokens` and `mask`, [B, T].
        key: of the random directions.
        num_probes: how many.
    """

    def probe(key: jax.Array) -> jax.Array:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
        tangent = jax.tree.unflatten(structure, draws)
        return jax.jvp(lambda at: nats(at, batch), (params,), (tangent,))[1]

    squares = lax.map(lambda k: jnp.square(probe(k)), jax.random.split(key, num_probes))
    return jnp.sqrt(jnp.mean(squares, axis=0))


def unit_weights(module: Any, params: Params, queries: Batch) -> Float[np.ndarray, "K T"]:
    """Weights that bring the gradient of each of the queries' tokens to unit length.

    Handed over as `weights` beside `tokens` and `mask`; the training set then needs `weights` too,
    of ones.

    Cost: a backward pass per token; queries are few.

    Args:
        module: a `CausalLM`.
        params: its parameters.
        queries: `tokens` and `mask`, [K, T].

    Returns:
        float32[K, T], 0 where nothing counts.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> batch = {"tokens": jnp.ones((1, 3), jnp.int32), "mask": jnp.ones((1, 3), bool)}
        >>> params = jax.jit(module.init)(jax.random.key(0), batch["tokens"])["params"]
        >>> (unit_weights(module, params, batch) > 0).tolist()
        [[False, True, True]]
    """
    plain = {name: jnp.asarray(queries[name]) for name in ("tokens", "mask")}
    return np.asarray(_unit_weights(token_nats(module), params, plain), np.float32)


# compiled once for all models of one shape
@partial(jax.jit, static_argnums=0)
def _unit_weights(nats: TokenNats, params: Params, queries: Batch) -> jax.Array:
    def of_query(query: Batch) -> jax.Array:
        alone = jax.tree.map(lambda a: a[None], query)

        def norm(token: jax.Array) -> jax.Array:
            gradient = jax.grad(lambda at: nats(at, alone)[0, token])(params)
            return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))

        norms = lax.map(norm, jnp.arange(query["tokens"].shape[0]))
        return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)

    return lax.map(of_query, queries)
