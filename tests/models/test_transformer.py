import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import Transformer

TOKENS = np.random.default_rng(0).integers(0, 11, (2, 6)).astype(np.int32)


@functools.cache
def small(**changes):
    settings = {"num_layers": 2, "width": 16, "num_heads": 2, "max_length": 8} | changes
    model = Transformer(11, **settings)
    variables = jax.jit(model.init)(jax.random.key(0), TOKENS)
    # larger than the initial embeddings, so that every token matters
    variables = jax.tree.map(
        lambda leaf: leaf + np.float32(0.3) * np.cos(np.arange(leaf.size)).reshape(leaf.shape),
        jax.device_get(variables),
    )
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float32), variables)
    return model, variables


@pytest.mark.parametrize("tie_head", [False, True])
def test_shapes(tie_head):
    model, variables = small(tie_head=tie_head)
    features = jax.eval_shape(lambda v: model.apply(v, TOKENS, method="features"), variables)
    assert jax.eval_shape(model.apply, variables, TOKENS).shape == (2, 6, 11)
    assert features.shape == (2, 6, 16)
    assert ("head" in variables["params"]) is not tie_head


def test_causal_and_nothing_more():
    model, variables = small()
    apply = jax.jit(model.apply)
    before = apply(variables, TOKENS)
    changed = apply(variables, np.where(np.arange(6) == 3, (TOKENS + 1) % 11, TOKENS))
    np.testing.assert_allclose(changed[:, :3], before[:, :3], rtol=1e-5, atol=1e-5)
    moved = jnp.abs(changed - before)[:, 3:].max(axis=(0, 2))
    assert (np.asarray(moved) > 1e-3).all()


def test_attention_is_the_formula():
    model, variables = small(num_layers=1)

    def dense(x, p):
        return x @ p["kernel"] + p["bias"][None, None]

    def norm(x, p):
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p["scale"][None, None] + p["bias"][None, None]

    def formula(params):
        block = params["block_0"]
        h = params["tokens"]["embedding"][TOKENS] + params["positions"]["embedding"][None, :6]
        qkv = dense(norm(h, block["norm1"]), block["qkv"]).reshape(2, 6, 3, 2, 8)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        weights = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(8.0)
        weights = jax.nn.softmax(jnp.where(jnp.tri(6, dtype=bool)[None, None], weights, -jnp.inf))
        heads = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 6, 16)
        h = h + dense(heads, block["out"])
        h = h + dense(jax.nn.gelu(dense(norm(h, block["norm2"]), block["mlp1"])), block["mlp2"])
        return norm(h, params["norm"]) @ params["head"]["kernel"]

    logits = jax.jit(model.apply)(variables, TOKENS)
    expected = jax.jit(formula)(variables["params"])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_forward_mode_works():
    model, variables = small()
    jvp = jax.jit(lambda v: jax.jvp(lambda v: model.apply(v, TOKENS), (v,), (v,)))
    _, tangent = jvp(variables)
    assert np.isfinite(tangent).all()
    assert float(jnp.abs(tangent).max()) > 0


def test_bad_settings():
    model, variables = small()
    with pytest.raises(InputError, match="9 tokens, but max_length is 8"):
        model.apply(variables, jnp.zeros((1, 9), jnp.int32))
    with pytest.raises(InputError, match="width 16 is no multiple of num_heads 3"):
        small(num_heads=3)
