import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxinf.adapters import check_per_example, from_nnx, stateful_from_nnx
from jaxinf.errors import InputError


class Net(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(self.norm(x)))[:, 0]


def squared(outputs, batch):
    return (outputs - batch["y"]) ** 2


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 2)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.arange(8.0)}


def snapshot(model):
    state = jax.tree.leaves(nnx.state(model))
    data = [
        jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in state
    ]
    return [np.asarray(leaf) for leaf in data]


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_users_model_as_it_was(batch, training):
    model = Net(nnx.Rngs(0))
    if training:
        model.train()
    else:
        model.eval()
    before = snapshot(model)
    loss_fn, params = from_nnx(model, squared)
    train_loss, _ = from_nnx(model, squared, train=True)
    stateful_loss, (_, state) = stateful_from_nnx(model, squared)
    loss_fn(params, batch)
    train_loss(params, batch)
    stateful_loss(params, state, batch, train=True)
    assert model.drop.deterministic is not training
    assert model.norm.use_running_average is not training
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_train_mode_is_no_per_example_loss(batch):
    loss_fn, params = from_nnx(Net(nnx.Rngs(0)), squared, train=True)
    with pytest.raises(InputError, match="put BatchNorm in eval mode"):
        check_per_example(loss_fn, params, batch)


def test_params_train_with_optax_and_go_back_into_the_model(batch):
    model = Net(nnx.Rngs(0))
    loss_fn, params = from_nnx(model, squared)
    optimizer = optax.sgd(1e-3)
    gradient = jax.grad(lambda p: loss_fn(p, batch).mean())(params)
    updates, _ = optimizer.update(gradient, optimizer.init(params))
    moved = optax.apply_updates(params, updates)
    assert loss_fn(moved, batch).mean() < loss_fn(params, batch).mean()
    nnx.update(model, moved)
    model.eval()
    np.testing.assert_allclose(squared(model(batch["x"]), batch), loss_fn(moved, batch), rtol=1e-6)


@pytest.mark.parametrize("call", [lambda f: f, lambda f: jax.jit(f, static_argnames="train")])
def test_stateful_train_mode_moves_the_statistics(batch, call):
    stateful_loss, (params, state) = stateful_from_nnx(Net(nnx.Rngs(0)), squared)
    losses, moved = call(stateful_loss)(params, state, batch, train=True)
    assert losses.shape == (8,)
    expected = 0.1 * batch["x"].mean(axis=0)
    np.testing.assert_allclose(moved["norm"]["mean"][...], expected, rtol=1e-5)
    np.testing.assert_array_equal(state["norm"]["mean"][...], np.zeros(2))
    assert jax.tree.structure(moved) == jax.tree.structure(state)


def test_stateful_eval_mode_equals_the_frozen_loss_and_keeps_the_state(batch):
    model = Net(nnx.Rngs(0))
    loss_fn, _ = from_nnx(model, squared)
    stateful_loss, (params, state) = stateful_from_nnx(model, squared)
    losses, same = stateful_loss(params, state, batch, train=False)
    np.testing.assert_array_equal(losses, loss_fn(params, batch))
    assert same is state


def test_dropout_draws_follow_the_state_and_the_key(batch):
    stateful_loss, (params, state) = stateful_from_nnx(Net(nnx.Rngs(0)), squared)
    run = lambda state, key=None: stateful_loss(params, state, batch, train=True, key=key)
    first, moved = run(state)
    np.testing.assert_array_equal(run(state)[0], first)
    assert not np.array_equal(run(moved)[0], first)  # the stream has advanced
    one, two = (run(state, jax.random.key(seed))[0] for seed in (1, 2))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(run(state, jax.random.key(1))[0], one)


def test_refuses_what_is_no_model():
    with pytest.raises(InputError, match=r"must be a flax\.nnx Module, not dict"):
        from_nnx({"w": 1}, squared)
    with pytest.raises(InputError, match=r"holds no nnx\.Param"):
        from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), squared)
