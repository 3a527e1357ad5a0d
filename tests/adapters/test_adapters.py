"""The one contract that every adapter keeps, run over all four frameworks.

Each case is the same network: a hidden layer, a BatchNorm with frozen statistics, a head. The
expected loss is written out by hand from the arrays themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxinf.adapters import (
    check_loss_shape,
    check_per_example,
    from_equinox,
    from_haiku,
    from_linen,
    from_nnx,
)

WIDTH, CLASSES = 4, 3


def cross_entropy(outputs, batch):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"])


def by_hand(arrays, batch):
    """The network on plain arrays: (w1, b1), (mean, var, scale, bias), (w2, b2)."""
    (w1, b1), (mean, var, scale, bias), (w2, b2) = arrays
    hidden = batch["x"] @ w1 + b1[None]
    hidden = (hidden - mean[None]) / jnp.sqrt(var[None] + 1e-5) * scale[None] + bias[None]
    return cross_entropy(jax.nn.relu(hidden) @ w2 + b2[None], batch)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(jax.nn.relu(self.norm(self.hidden(x)))))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(WIDTH)(x)
        x = nn.BatchNorm(use_running_average=not train, epsilon=1e-5)(x)
        x = nn.Dropout(0.5, deterministic=not train)(jax.nn.relu(x))
        return nn.Dense(CLASSES)(x)


class EquinoxNet(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.hidden = eqx.nn.Linear(2, WIDTH, key=first)
        self.norm = eqx.nn.BatchNorm(WIDTH, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=second)

    def __call__(self, x, state):
        x, state = self.norm(self.hidden(x), state)
        return self.head(self.drop(jax.nn.relu(x))), state


def haiku_net(x, is_training):
    x = hk.Linear(WIDTH)(x)
    x = hk.BatchNorm(True, True, decay_rate=0.9, eps=1e-5)(x, is_training)
    return hk.Linear(CLASSES)(jax.nn.relu(x))


HAIKU_NET = hk.transform_with_state(haiku_net)


class Case(NamedTuple):
    adapt: Callable[[], tuple[Any, Any]]
    arrays: Any


STATISTICS = (np.linspace(-1, 1, WIDTH, dtype=np.float32), np.full(WIDTH, 2.5, np.float32))


def nnx_case(seed):
    model = NnxNet(nnx.Rngs(seed))
    model.norm.mean[...] = jnp.asarray(STATISTICS[0])
    model.norm.var[...] = jnp.asarray(STATISTICS[1])
    norm = (model.norm.mean, model.norm.var, model.norm.scale, model.norm.bias)
    parts = ((model.hidden.kernel, model.hidden.bias), norm, (model.head.kernel, model.head.bias))
    arrays = jax.tree.map(lambda v: v[...], parts, is_leaf=lambda v: isinstance(v, nnx.Variable))
    return Case(lambda: from_nnx(model, cross_entropy), arrays)


def linen_case(seed):
    module = LinenNet()
    variables = module.init(jax.random.key(seed), jnp.ones((1, 2)), train=False)
    statistics = {
        "BatchNorm_0": {"mean": jnp.asarray(STATISTICS[0]), "var": jnp.asarray(STATISTICS[1])}
    }
    variables = {**variables, "batch_stats": statistics}
    p = variables["params"]
    arrays = (
        (p["Dense_0"]["kernel"], p["Dense_0"]["bias"]),
        (*STATISTICS, p["BatchNorm_0"]["scale"], p["BatchNorm_0"]["bias"]),
        (p["Dense_1"]["kernel"], p["Dense_1"]["bias"]),
    )
    return Case(lambda: from_linen(module, variables, cross_entropy, train=False), arrays)


def equinox_case(seed):
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(seed))
    # equinox keeps the statistics undebiased: with a count of 0 they are taken as they are
    state = state.set(model.norm.batch_state_index, tuple(map(jnp.asarray, STATISTICS)))
    arrays = (
        (model.hidden.weight.T, model.hidden.bias),
        (*STATISTICS, model.norm.weight, model.norm.bias),
        (model.head.weight.T, model.head.bias),
    )
    return Case(lambda: from_equinox(model, cross_entropy, state=state), arrays)


def haiku_case(seed):
    params, state = HAIKU_NET.init(jax.random.key(seed), jnp.ones((1, 2)), True)
    mean, var = (jnp.asarray(value)[None] for value in STATISTICS)
    state = {
        **state,
        "batch_norm/~/mean_ema": {**state["batch_norm/~/mean_ema"], "average": mean},
        "batch_norm/~/var_ema": {**state["batch_norm/~/var_ema"], "average": var},
    }
    norm = params["batch_norm"]
    arrays = (
        (params["linear"]["w"], params["linear"]["b"]),
        (*STATISTICS, norm["scale"][0], norm["offset"][0]),
        (params["linear_1"]["w"], params["linear_1"]["b"]),
    )
    return Case(
        lambda: from_haiku(HAIKU_NET, params, cross_entropy, state=state, is_training=False),
        arrays,
    )


CASES = {"nnx": nnx_case, "linen": linen_case, "equinox": equinox_case, "haiku": haiku_case}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param](0)


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.arange(6) % CLASSES}


def test_equals_the_loss_written_by_hand(case, batch):
    loss_fn, params = case.adapt()
    expected = by_hand(case.arrays, batch)
    np.testing.assert_allclose(loss_fn(params, batch), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(loss_fn)(params, batch), expected, rtol=1e-5, atol=1e-6)
    # a second eager call finds the frozen state as the first left it
    np.testing.assert_array_equal(loss_fn(params, batch), loss_fn(params, batch))


def test_is_a_per_example_loss(case, batch):
    loss_fn, params = case.adapt()
    assert check_loss_shape(loss_fn, params, batch).shape == (6,)
    check_per_example(loss_fn, params, batch)


def test_statistics_are_frozen_not_differentiated(case):
    _, params = case.adapt()
    leaves = jax.tree.leaves(params)
    assert (
        sum(leaf.size for leaf in leaves)
        == 2 * WIDTH + WIDTH + 2 * WIDTH + WIDTH * CLASSES + CLASSES
    )
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


def test_gradients_equal_those_by_hand(case, batch):
    loss_fn, params = case.adapt()
    gradient = jax.jit(jax.grad(lambda p: loss_fn(p, batch).sum()))(params)
    (w1, b1), (_, _, scale, bias), head = jax.jit(jax.grad(lambda a: by_hand(a, batch).sum()))(
        case.arrays
    )
    # frameworks lay the same arrays out differently: compare the entries as sets
    entries = lambda tree: np.sort(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]))
    expected = entries(((w1, b1), (scale, bias), head))
    np.testing.assert_allclose(entries(gradient), expected, rtol=1e-4, atol=1e-5)


def test_vmaps_over_examples_and_over_parameter_sets(case, batch):
    loss_fn, params = case.adapt()
    one = jax.vmap(lambda row: loss_fn(params, jax.tree.map(lambda leaf: leaf[None], row))[0])
    np.testing.assert_allclose(jax.jit(one)(batch), loss_fn(params, batch), rtol=1e-5, atol=1e-6)
    sets = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    losses = jax.jit(jax.vmap(loss_fn, in_axes=(0, None)))(sets, batch)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    np.testing.assert_allclose(losses[1], loss_fn(doubled, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_another_checkpoint_compiles_nothing_anew(name, batch):
    traces = []

    @jax.jit
    def run(loss_fn, params, batch):
        traces.append(name)
        return loss_fn(params, batch)

    for seed in (0, 1):
        case = CASES[name](seed)
        loss_fn, params = case.adapt()
        np.testing.assert_allclose(
            run(loss_fn, params, batch), by_hand(case.arrays, batch), rtol=1e-5, atol=1e-6
        )
    assert len(traces) == 1


def test_moved_statistics_are_traced_not_baked_in(case, batch):
    loss_fn, params = case.adapt()
    traces = []

    @jax.jit
    def run(loss_fn, params, batch):
        traces.append(1)
        return loss_fn(params, batch)

    def move(leaf):
        return leaf + 1 if leaf.shape and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    (w, norm, head), moved = case.arrays, jax.tree.map(move, loss_fn)
    before, after = run(loss_fn, params, batch), run(moved, params, batch)
    expected = by_hand((w, (norm[0] + 1, norm[1] + 1, *norm[2:]), head), batch)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(after - before)).max() > 1e-2
    assert len(traces) == 1
