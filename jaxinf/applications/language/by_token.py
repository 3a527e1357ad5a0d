"""Influence token by token, each token's gradient at unit length.

A sentence's gradient is ruled by its hardest tokens, mostly names that nothing predicts, and those
say little of the fact. At unit length every token has one voice: the object in the answer's words,
the subject in the question's.
"""

from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxinf.applications.language.losses import TokenNats, causal_lm_loss, token_nats
from jaxinf.applications.language.parts import token_scores
from jaxinf.errors import InputError, check_count
from jaxinf.influence import Attributor, influence_function
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.typing import Batch, Params

Aggregate: TypeAlias = Literal["mean", "best"]


def by_token(
    module: Any,
    *,
    aggregate: Aggregate = "mean",
    damping: float = 0.1,
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
        damping: of the curvature, in units of its mean eigenvalue.
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
        'by_token(mean, 0.1, 32 probes)'
    """
    if aggregate not in get_args(Aggregate):
        raise InputError(f"aggregate must be 'mean' or 'best', not {aggregate!r}")
    check_count(num_probes, "num_probes")
    probes = jax.random.key(0) if key is None else key
    loss, nats = causal_lm_loss(module, reduction="sum"), token_nats(module)
    inner = influence_function(
        loss,
        solver="ekfac",
        curvature="fisher",
        damping=damping,
        damping_unit="mean_eigenvalue",
        scorer="jvp",
        query_chunk=query_chunk,
    )

    def score(state: DirectionState, batch: Batch) -> jax.Array:
        shares = token_scores(inner, loss, state, batch)
        norms = estimated_token_norms(nats, state.params, batch, probes, num_probes)
        counted = jnp.asarray(batch["mask"]).at[:, 0].set(False)[None]
        safe = jnp.where(norms > 0, norms, 1)[None]
        cosines = jnp.where(counted & (norms > 0)[None], shares / safe, 0)
        if aggregate == "mean":
            return jnp.sum(cosines, axis=2) / jnp.maximum(jnp.sum(counted, axis=2), 1)
        return jnp.max(jnp.where(counted, cosines, -jnp.inf), axis=2)

    inner_cost = inner.forward_passes
    return Attributor(
        inner.prepare,
        score,
        inner.diagnose,
        loss,
        inner_cost and (lambda k: inner_cost(k) + 1.0 + 2.0 * num_probes),
        f"by_token({aggregate}, {damping:g}, {num_probes} probes)",
    )


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
        >>> params = module.init(jax.random.key(0), batch["tokens"])["params"]
        >>> (unit_weights(module, params, batch) > 0).tolist()
        [[False, True, True]]
    """
    nats = token_nats(module)

    @jax.jit
    def of_query(params: Params, query: Batch) -> jax.Array:
        alone = jax.tree.map(lambda a: a[None], query)

        def norm(token: jax.Array) -> jax.Array:
            gradient = jax.grad(lambda at: nats(at, alone)[0, token])(params)
            return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))

        norms = lax.map(norm, jnp.arange(query["tokens"].shape[0]))
        return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)

    count = len(queries["tokens"])
    plain = {name: queries[name] for name in ("tokens", "mask")}
    rows = [jax.tree.map(lambda a, k=k: a[k], plain) for k in range(count)]
    return np.stack([np.asarray(of_query(params, row), np.float32) for row in rows])
