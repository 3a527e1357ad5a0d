"""EK-FAC: what it watches, where it is exact, and how near it comes on networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative

from jaxinf import InputError, attribute
from jaxinf.adapters import from_linen
from jaxinf.engine import Stream, as_source
from jaxinf.influence import grad_dot
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.inverse_hessian.layers import find_layers, traffic
from jaxinf.influence.loss import scoring_loss
from jaxinf.models import cross_entropy


class Net(nn.Module):
    """One of each: convolution (dilated, and strided), normalisation, attention, dense."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (3, 3), kernel_dilation=2)(x))
        x = nn.Conv(4, (2, 3), strides=2, padding=((1, 0), 1), use_bias=False)(x)
        x = nn.LayerNorm()(x.reshape(x.shape[0], -1, 4))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6)(x)
        return nn.Dense(3)(nn.tanh(nn.Dense(5)(x.mean(axis=1))))


class Small(nn.Module):
    """A multilayer perceptron."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.tanh(nn.Dense(6)(x)))


class Twice(nn.Module):
    """A layer that is called twice."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(x.shape[-1])
        return nn.Dense(3)(layer(nn.tanh(layer(x))))


def make(module, shape, count=12, classes=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *shape)).astype(np.float32)
    data = {"x": x, "y": rng.integers(0, classes, count).astype(np.int32)}
    loss_fn, params = from_linen(module, module.init(jax.random.key(0), x[:1]), cross_entropy)
    return loss_fn, params, jax.tree.map(lambda a: a[:3], data), data


def run(method, params, queries, train, batch_size=5):
    state = method.prepare(params, queries, Stream(as_source(train), batch_size))
    return np.asarray(jax.jit(method.score)(state, train), np.float64), state


def test_the_traffic_makes_up_the_gradients():
    loss_fn, params, _, data = make(Net(), (6, 7, 2), count=4)
    measured = scoring_loss(loss_fn)
    layers = find_layers(measured, params, data)
    names = [".".join(layer.path) for layer in layers]
    attention = "MultiHeadDotProductAttention_0"
    assert set(names) == {"Conv_0", "Conv_1", "Dense_0", "Dense_1"} | {
        f"{attention}.{part}" for part in ("query", "key", "value", "out")
    }
    gradients = jax.jit(
        jax.vmap(
            jax.grad(lambda p, row: loss_fn(p, jax.tree.map(lambda a: a[None], row))[0]), (None, 0)
        )
    )(params, data)
    leaves = jax.tree.leaves(gradients)
    passed = jax.jit(lambda params: traffic(measured, params, data, layers))(params)
    for layer, part in zip(layers, passed, strict=True):
        found = np.einsum("bti,bto->bio", part.entering, part.slopes)
        expected = np.asarray(leaves[layer.kernel]).reshape(4, -1, found.shape[2])
        if layer.bias is not None:
            bias = np.asarray(leaves[layer.bias]).reshape(4, 1, -1)
            expected = np.concatenate([expected, bias], axis=1)
        # a key's bias does not change attention: its gradient is rounding
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max() + 1e-7)


def test_it_is_exact_for_one_output_whose_slopes_have_one_size():
    """Then the Fisher matrix is a Kronecker product, and has the eigenbasis."""
    module = nn.Dense(1)
    rng = np.random.default_rng(1)
    data = {
        "x": rng.normal(size=(12, 4)).astype(np.float32),
        "y": rng.choice([-1.0, 1.0], 12).astype(np.float32),
    }
    loss = lambda outputs, batch: outputs[:, 0] * batch["y"]
    loss_fn, params = from_linen(module, module.init(jax.random.key(0), data["x"]), loss)
    queries = jax.tree.map(lambda a: a[:3], data)
    method = influence_function(loss_fn, solver="ekfac", curvature="fisher", damping=0.1)
    found, state = run(method, params, queries, data)
    z = np.concatenate([data["x"], np.ones((12, 1))], axis=1) * data["y"][:, None]
    expected = z[:3] @ np.linalg.solve(z.T @ z / 12 + 0.1 * np.eye(5), z.T) / 12
    assert relative(found, expected) < 1e-5
    assert (np.asarray(state.diagnostics["residual"]) < 1e-5).all()


def test_on_a_network_it_is_near_the_fisher_inverse():
    problem = make(Small(), (4,), count=60)
    options = {"curvature": "fisher", "damping": 0.1, "damping_unit": "mean_eigenvalue"}
    scores = {
        solver: run(influence_function(problem[0], solver=solver, **options), *problem[1:], 60)[0]
        for solver in ("exact", "ekfac")
    }
    dots = grad_dot(problem[0], scorer="gradients")
    scores["none"] = np.asarray(jax.jit(dots.score)(dots.prepare(*problem[1:3]), problem[3]))
    near, plain = (
        np.corrcoef(scores[name].ravel(), scores["exact"].ravel())[0, 1]
        for name in ("ekfac", "none")
    )
    # what separate layers and factors leave out shows on a network this small
    assert near > 0.8
    assert 1 - near < (1 - plain) / 2


def test_attribute_runs_it():
    loss_fn, params, queries, train = make(nn.Dense(3), (4,))
    method = influence_function(loss_fn, solver="ekfac", curvature="fisher", damping=0.1)
    found = attribute(method, params, queries, train, progress=False)
    assert relative(found.scores, run(method, params, queries, train)[0]) < 1e-5


def test_a_layer_called_twice_falls_back_to_the_diagonal():
    loss_fn, params, _, data = make(Twice(), (4,))
    layers = find_layers(scoring_loss(loss_fn), params, data)
    assert [layer.path for layer in layers] == [("Dense_1",)]


def test_bad_input():
    loss_fn, params, queries, train = make(nn.Dense(3), (4,))
    make_method = lambda loss, **options: influence_function(
        loss, **({"solver": "ekfac", "curvature": "fisher", "damping": 0.1} | options)
    )
    with pytest.raises(InputError, match="needs damping above 0"):
        run(make_method(loss_fn, damping=0.0), params, queries, train)
    with pytest.raises(InputError, match="takes no penalty"):
        run(make_method(loss_fn, penalty=lambda p: 0.0), params, queries, train)
    by_hand = lambda w, batch: jnp.tanh(batch["x"] @ w)
    with pytest.raises(InputError, match=r"no Dense, DenseGeneral or Conv layer of flax\.linen"):
        run(make_method(by_hand), jnp.ones(4), queries, train)
