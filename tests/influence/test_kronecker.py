"""K-FAC and EK-FAC against their formulas as dense matrices, on convolution and attention.

The forward pass is written out by hand, so that nothing is taken from the tracing of layers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative, to_float64

from jaxinf.adapters import from_linen
from jaxinf.engine import Stream, as_source
from jaxinf.influence import influence_function
from jaxinf.models import cross_entropy

DAMPING, COUNT = 0.01, 14


class Net(nn.Module):
    """A convolution, self-attention over its pixels, and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (2, 2), padding="VALID")(x))
        x = x.reshape(x.shape[0], -1, 3)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=4)(x)
        return nn.Dense(3)(x.mean(axis=1))


def by_hand(params, x, probes):
    """Logits, and what enters each layer float[B, T, I]; probes are added to what leaves it."""
    entering = {}

    def linear(name, layer, x, width):
        entering[name] = jnp.concatenate([x, jnp.ones((*x.shape[:2], 1), x.dtype)], axis=2)
        kernel, bias = layer["kernel"].reshape(-1, width), layer["bias"].reshape(1, 1, width)
        return x @ kernel + bias + probes[name]

    corners = [x[:, i : i + 2, j : j + 2].reshape(len(x), -1) for i in range(3) for j in range(3)]
    x = jnp.tanh(linear("conv", params["Conv_0"], jnp.stack(corners, axis=1), 3))
    attention = params["MultiHeadDotProductAttention_0"]
    q, k, v = (
        linear(name, attention[name], x, 4).reshape(len(x), 9, 2, 2)
        for name in ("query", "key", "value")
    )
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(2.0), axis=3)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(len(x), 9, 4)
    x = x + linear("out", attention["out"], mixed, 3)
    pooled = x.mean(axis=1, keepdims=True)
    return linear("dense", params["Dense_0"], pooled, 3)[:, 0], entering


def parts(params, data):
    """What enters each layer, and the slopes of the losses in what leaves it."""
    widths = {"conv": 3, "query": 4, "key": 4, "value": 4, "out": 3, "dense": 3}
    probes = {
        name: jnp.zeros((len(data["y"]), 1 if name == "dense" else 9, width))
        for name, width in widths.items()
    }

    def total(probes):
        logits, entering = by_hand(params, data["x"], probes)
        return cross_entropy(logits, data).sum(), entering

    slopes, entering = jax.jit(jax.grad(total, has_aux=True))(probes)
    return {name: (np.asarray(entering[name]), np.asarray(slopes[name])) for name in widths}


def dense_scores(parts, method, queries):
    """The formulas, with the matrix of every layer in full."""
    scores = 0.0
    for entering, slopes in parts.values():
        gradients = np.einsum("bti,bto->bio", entering, slopes)
        a, s = (np.einsum("bti,btj->ij", side, side) for side in (entering, slopes))
        if method == "kfac":
            fisher = np.kron(a, s) / (COUNT * COUNT * entering.shape[1])
        else:
            left, right = np.linalg.eigh(a)[1], np.linalg.eigh(s)[1]
            values = np.mean((left.T @ gradients @ right) ** 2, axis=0)
            basis = np.kron(left, right)
            fisher = basis @ np.diag(values.ravel()) @ basis.T
        flat = gradients.reshape(COUNT, -1)
        damped = fisher + DAMPING * np.eye(len(fisher))
        scores = scores + flat[queries] @ np.linalg.solve(damped, flat.T) / COUNT
    return scores


@pytest.fixture
def problem(x64):
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(COUNT, 4, 4, 1)), "y": rng.integers(0, 3, COUNT)}
    module = Net()
    variables = to_float64(module.init(jax.random.key(0), data["x"]))
    # flax starts biases at zero, where a mistake would not show
    variables = jax.tree.map(
        lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), variables
    )
    return (*from_linen(module, variables, cross_entropy), data)


def test_the_forward_pass_by_hand_is_the_network(problem):
    loss_fn, params, data = problem
    zeros = dict.fromkeys(("conv", "query", "key", "value", "out", "dense"), 0.0)
    logits, _ = by_hand(params, data["x"], zeros)
    assert relative(cross_entropy(logits, data), loss_fn(params, data)) < 1e-12


@pytest.mark.parametrize("method", ["kfac", "ekfac"])
def test_scores_are_those_of_the_dense_formula(problem, method):
    loss_fn, params, data = problem
    attributor = influence_function(
        loss_fn, solver=method, curvature="fisher", damping=DAMPING, scorer="gradients"
    )
    queries = jax.tree.map(lambda a: a[:3], data)
    # two blocks, the second padded
    state = attributor.prepare(params, queries, Stream(as_source(data), 8))
    found = jax.jit(attributor.score)(state, data)
    expected = dense_scores(parts(params, data), method, slice(3))
    assert relative(found, expected) < 1e-10
