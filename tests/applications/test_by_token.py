"""Influence by token against gradients of every token, taken one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.applications.language import (
    by_token,
    causal_lm_loss,
    shares_by_token,
    unit_weights,
)
from jaxinf.applications.language.by_token import estimated_token_norms
from jaxinf.applications.language.losses import token_nats
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.errors import InputError
from jaxinf.influence import influence_function


class Tiny(nn.Module):
    """The next token by the mean of those so far: quick to compile, and yet with a context."""

    @nn.compact
    def __call__(self, tokens):
        hidden = nn.Embed(11, 6, name="table")(tokens)
        so_far = jnp.cumsum(hidden, axis=1) / jnp.arange(1, 1 + tokens.shape[1])[None, :, None]
        return nn.Dense(11, name="head")(jnp.tanh(so_far))


@pytest.fixture(scope="module")
def case():
    module = Tiny()
    rng = np.random.default_rng(0)
    mask = np.ones((4, 6), bool)
    mask[1, 4:], mask[2, :3] = False, False
    train = {"tokens": rng.integers(0, 11, (4, 6)).astype(np.int32), "mask": mask}
    params = jax.jit(module.init)(jax.random.key(0), train["tokens"])["params"]
    params = jax.tree.map(lambda p: 3 * p if p.ndim > 1 else p, params)
    nats = token_nats(module)
    gradients = jax.jit(jax.jacrev(lambda p: nats(p, train)))(params)  # leaves [B, T, ...]
    flat = [np.asarray(g).reshape(4, 6, -1) for g in jax.tree.leaves(gradients)]
    return module, params, train, np.concatenate(flat, axis=2)


def counted(train):
    mask = train["mask"].copy()
    mask[:, 0] = False
    return mask


def test_estimated_norms_are_near(case):
    module, params, train, gradients = case
    exact = np.linalg.norm(gradients, axis=2)
    estimate = jax.jit(estimated_token_norms, static_argnums=(0, 4))
    found = estimate(token_nats(module), params, train, jax.random.key(0), 800)
    np.testing.assert_allclose(found, exact, rtol=0.15)
    assert (np.asarray(found) == 0)[~counted(train)].all()


def test_unit_weights_make_every_gradient_one_long(case):
    module, params, train, gradients = case
    weights = unit_weights(module, params, train)
    norms = weights * np.linalg.norm(gradients, axis=2)
    np.testing.assert_allclose(norms, counted(train), rtol=1e-5)
    loss = causal_lm_loss(module, reduction="sum")
    whole = jax.jit(jax.grad(lambda p: loss(p, train | {"weights": weights}).sum()))(params)
    flat = np.concatenate([np.asarray(g).ravel() for g in jax.tree.leaves(whole)])
    expected = np.einsum("btp,bt->p", gradients, weights)
    np.testing.assert_allclose(flat, expected, atol=1e-5 * np.linalg.norm(expected))


@pytest.mark.parametrize("aggregate", ["mean", pytest.param("best", marks=pytest.mark.slow)])
def test_scores_are_slopes_over_norms(case, aggregate):
    module, params, train, gradients = case
    queries = {name: array[:2] for name, array in train.items()}
    stream = Stream(ArraySource(train), 4)
    method = by_token(module, aggregate=aggregate, damping=0.1, num_probes=800)
    found = jax.jit(method.score)(method.prepare(params, queries, stream), train)
    inner = influence_function(
        causal_lm_loss(module, reduction="sum"),
        solver="ekfac",
        curvature="fisher",
        damping=0.1,
        damping_unit="mean_eigenvalue",
        scorer="jvp",
    )
    moved = inner.prepare(params, queries, stream).directions
    direction = np.concatenate([np.asarray(d).reshape(2, -1) for d in jax.tree.leaves(moved)], 1)
    mask = counted(train)
    norms = np.where(mask, np.linalg.norm(gradients, axis=2), np.inf)
    cosines = -np.einsum("btp,kp->kbt", gradients, direction) / norms[None]
    if aggregate == "mean":
        expected = cosines.sum(axis=2) / mask.sum(axis=1)
    else:
        expected = np.where(mask, cosines, -np.inf).max(axis=2)
    assert np.linalg.norm(found - expected) < 0.15 * np.linalg.norm(expected)


@pytest.mark.parametrize("aggregate", ["mean", "best"])
def test_shares_of_tokens_make_up_the_score(case, aggregate):
    module, params, train, _ = case
    queries = {name: array[:2] for name, array in train.items()}
    method, shares = (
        make(module, aggregate=aggregate, num_probes=2) for make in (by_token, shares_by_token)
    )
    state = shares.prepare(params, queries, Stream(ArraySource(train), 4))
    found = np.asarray(jax.jit(shares.score)(state, train))
    whole = np.asarray(jax.jit(method.score)(state, train))
    made = found.sum(axis=2)
    if aggregate == "best":
        made = np.where(counted(train), found, -np.inf).max(axis=2)
    np.testing.assert_allclose(made, whole, atol=1e-5 * np.abs(whole).max())
    assert not found[:, ~counted(train)].any()


def test_settings_that_mean_nothing_are_refused(case):
    module = case[0]
    with pytest.raises(InputError, match="aggregate must be"):
        by_token(module, aggregate="median")
    with pytest.raises(InputError, match="num_probes is 0"):
        by_token(module, num_probes=0)


def test_weights_multiply_the_losses(case):
    module, params, train, _ = case
    loss = jax.jit(causal_lm_loss(module, reduction="sum"))
    double = train | {"weights": np.full((4, 6), 2.0, np.float32)}
    np.testing.assert_allclose(loss(params, double), 2 * loss(params, train), rtol=1e-6)
    assert jnp.isfinite(loss(params, train)).all()
