"""LoGra: exact with whole projections, near with good ones, and cheap in what it forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative, to_float64

from jaxinf import InputError, attribute
from jaxinf.adapters import from_linen
from jaxinf.engine import Stream, as_source
from jaxinf.influence import group_queries
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.inverse_hessian.layers import find_layers
from jaxinf.influence.layer_projection import random_factors
from jaxinf.influence.logra import logra
from jaxinf.influence.loss import scoring_loss
from jaxinf.models import cross_entropy


class Net(nn.Module):
    """Attention and dense layers, every parameter in one of them."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=4, use_bias=False)(x)
        return nn.Dense(3)(nn.tanh(nn.Dense(4)(x.mean(axis=1))))


def make(x64=False, count=30):
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(count, 5, 3)).astype(np.float64 if x64 else np.float32),
        "y": rng.integers(0, 3, count).astype(np.int32),
    }
    variables = Net().init(jax.random.key(0), jnp.asarray(data["x"][:1]))
    variables = to_float64(variables) if x64 else variables
    loss_fn, params = from_linen(Net(), variables, cross_entropy)
    return loss_fn, params, jax.tree.map(lambda a: a[:4], data), data


def run(method, params, queries, train, batch_size=8):
    state = method.prepare(params, queries, Stream(as_source(train), batch_size))
    return np.asarray(jax.jit(method.score)(state, train), np.float64), state


@pytest.mark.parametrize("init", ["random", "pca"])
@pytest.mark.parametrize("measure", ["loss", "margin"])
def test_whole_projections_are_the_exact_fisher_influence(x64, init, measure):
    problem = make(x64=True)
    options = {"damping": 0.3, "damping_unit": "mean_eigenvalue", "measure": measure}
    found, state = run(
        logra(problem[0], rank=99, init=init, key=jax.random.key(1), blocks="all", **options),
        *problem[1:],
    )
    exact = influence_function(problem[0], solver="exact", curvature="fisher", **options)
    assert found.dtype == np.float64
    assert relative(found, run(exact, *problem[1:])[0]) < 1e-10
    np.testing.assert_allclose(state.diagnostics["kept"], 1.0, rtol=1e-10)


def gradients(loss_fn, params, data):
    """Per-example gradients of each layer, float[N, I, O], by reverse mode alone."""
    one = lambda p, row: loss_fn(p, jax.tree.map(lambda a: a[None], row))[0]
    leaves = jax.tree.leaves(jax.jit(jax.vmap(jax.grad(one), (None, 0)))(params, data))
    found = []
    for layer in find_layers(scoring_loss(loss_fn), params, data):
        kernel, count = np.asarray(leaves[layer.kernel]), len(data["y"])
        width = {"query": 4, "key": 4, "value": 4}.get(layer.path[-1], kernel.shape[-1])
        kernel = kernel.reshape(count, -1, width)
        if layer.bias is not None:
            bias = np.asarray(leaves[layer.bias]).reshape(count, 1, width)
            kernel = np.concatenate([kernel, bias], axis=1)
        found.append(kernel)
    return found


@pytest.mark.parametrize("blocks", ["layers", "all"])
@pytest.mark.parametrize("init", ["random", "pca"])
def test_low_rank_is_the_formula_on_projected_gradients(x64, init, blocks):
    loss_fn, params, queries, data = make(x64=True)
    method = logra(
        loss_fn, rank=2, init=init, key=jax.random.key(1), blocks=blocks, damping=0.01,
        damping_unit="absolute",
    )  # fmt: skip
    found, state = run(method, params, queries, data)
    features = [
        np.einsum("ir,nio,os->nrs", pair.entering, g, pair.slopes).reshape(len(g), -1)
        for g, pair in zip(gradients(loss_fn, params, data), state.factors, strict=True)
    ]
    if blocks == "all":
        features = [np.concatenate(features, axis=1)]
    expected = 0.0
    for phi in features:
        curvature = phi.T @ phi / len(phi) + 0.01 * np.eye(phi.shape[1])
        expected = expected + phi[:4] @ np.linalg.solve(curvature, phi.T) / len(phi)
    assert relative(found, expected) < 1e-10


def test_principal_projections_span_the_largest_directions(x64):
    loss_fn, params, queries, data = make(x64=True)
    method = logra(loss_fn, rank=2, init="pca")
    factors = run(method, params, queries, data)[1].factors
    # the first layer's inputs are the data's: query, key and value see the same
    moment = np.einsum("bti,btj->ij", data["x"], data["x"])
    largest = np.linalg.eigh(moment)[1][:, -2:]
    inside = np.asarray(factors[0].entering)
    np.testing.assert_allclose(inside @ inside.T, largest @ largest.T, atol=1e-10)


def test_random_projections_keep_inner_products_on_average():
    sides = [(12, 9)]
    a, b = np.random.default_rng(0).normal(size=(2, 12, 9))
    b = a + 0.5 * b
    draw = jax.jit(lambda key: random_factors(key, sides, 4)[0])
    products = []
    for key in jax.random.split(jax.random.key(0), 300):
        left, right = draw(key)
        project = lambda g, left=left, right=right: np.asarray(left).T @ g @ np.asarray(right)
        products.append(np.sum(project(a) * project(b)))
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - np.sum(a * b)) < 4 * error
    assert error < 0.05 * np.sum(a * b)


def test_a_group_is_its_mean_gradient(x64):
    loss_fn, params, queries, data = make(x64=True)
    method = logra(loss_fn, rank=2, key=jax.random.key(1))
    whole, _ = run(method, params, queries, data)
    groups = group_queries(queries, np.array([0, 1, 1, 0]))
    found, state = run(method, params, groups, data)
    expected = np.stack([whole[[0, 3]].mean(axis=0), whole[[1, 2]].mean(axis=0)])
    assert relative(found, expected) < 1e-10
    before = np.asarray(loss_fn(params, queries))
    np.testing.assert_allclose(state.diagnostics["loss_before"][0], before[[0, 3]].mean())
    # what is kept, from gradients in full
    each = gradients(loss_fn, params, queries)
    mean = [g[[0, 3]].mean(axis=0) for g in each]
    held = [pair.entering.T @ g @ pair.slopes for g, pair in zip(mean, state.factors, strict=True)]
    share = sum((a**2).sum() for a in held) / sum((a**2).sum() for a in mean)
    np.testing.assert_allclose(state.diagnostics["kept"][0], share)


def test_attribute_runs_it_in_float32():
    loss_fn, params, queries, data = make()
    method = logra(loss_fn, rank=3, key=jax.random.key(1))
    found = attribute(method, params, queries, data, batch_size=16, progress=False)
    assert relative(found.scores, run(method, params, queries, data)[0]) < 1e-4
    assert set(found.diagnostics) == {"loss_before", "kept"}


def test_bad_input():
    loss_fn, params, queries, data = make()
    for options, message in (
        ({"rank": 0}, "rank must be a whole number"),
        ({"init": "svd"}, "init must be"),
        ({"key": None}, "need a key"),
        ({"blocks": "some"}, "blocks must be"),
        ({"damping": -1.0}, "damping must be"),
        ({"damping_unit": "relative"}, "damping_unit must be"),
    ):
        with pytest.raises(InputError, match=message):
            logra(loss_fn, **({"key": jax.random.key(0)} | options))
    with pytest.raises(InputError, match="is singular: set damping above 0"):
        run(logra(loss_fn, rank=99, init="pca", damping=0.0), params, queries, data)
    by_hand = logra(lambda w, batch: jnp.tanh(batch["x"].sum((1, 2)) * w), init="pca")
    with pytest.raises(InputError, match=r"no Dense, DenseGeneral or Conv layer of flax\.linen"):
        run(by_hand, jnp.ones(()), queries, data)
