import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.errors import InputError


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]

    def features(self, x):
        return 2.0 * x[:, 0]


def squared(outputs, batch):
    return (outputs - batch["y"]) ** 2


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 2)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.arange(8.0)}


@pytest.fixture
def variables():
    return Net().init(jax.random.key(0), jnp.ones((1, 2)), train=False)


def test_frozen_dicts_and_keyword_arrays(batch, variables):
    loss_fn, params = from_linen(Net(), flax.core.freeze(variables), squared, train=False)
    again, _ = from_linen(
        Net(), variables, squared, train=False, rngs={"dropout": jax.random.key(0)}
    )
    np.testing.assert_array_equal(loss_fn(params, batch), jax.jit(again)(params, batch))


def test_another_method(batch, variables):
    for method in ("features", Net.features):
        loss_fn, params = from_linen(Net(), variables, squared, method=method)
        expected = (2.0 * batch["x"][:, 0] - batch["y"]) ** 2
        np.testing.assert_allclose(loss_fn(params, batch), expected)


def test_inputs_by_position_and_by_function(batch, variables):
    expected = from_linen(Net(), variables, squared, train=False)[0](variables["params"], batch)
    against = lambda outputs, pair: (outputs - pair[1]) ** 2
    loss_fn, params = from_linen(Net(), variables, against, inputs=0, train=False)
    np.testing.assert_array_equal(loss_fn(params, (batch["x"], batch["y"])), expected)
    halved = lambda batch: batch["x"] / 2
    loss_fn, params = from_linen(Net(), variables, squared, inputs=halved, train=False)
    doubled = {"x": 2 * batch["x"], "y": batch["y"]}
    np.testing.assert_allclose(loss_fn(params, doubled), expected, rtol=1e-6)


def test_a_missing_input_is_named(batch, variables):
    loss_fn, params = from_linen(Net(), variables, squared, inputs="image", train=False)
    with pytest.raises(InputError, match=r"no entry 'image' \(it has keys \['x', 'y'\]\)"):
        loss_fn(params, batch)


@pytest.mark.parametrize("keywords", [{}, {"training": False}, {"train": False, "mask": None}])
def test_wrong_arguments_are_refused_before_any_work(variables, keywords):
    with pytest.raises(InputError, match=r"Net cannot be called on one input .*train=False"):
        from_linen(Net(), variables, squared, **keywords)


def test_train_mode_is_refused_with_the_remedy(batch, variables):
    loss_fn, params = from_linen(Net(), variables, squared, train=True)
    with pytest.raises(InputError, match=r'"batch_stats" is immutable; .* pass train=False'):
        loss_fn(params, batch)
    dropout = nn.Dropout(0.5, deterministic=False)
    loss_fn, params = from_linen(dropout, {"params": {}}, lambda out, _: out.sum(-1))
    with pytest.raises(InputError, match=r'needs PRNG for "dropout"; .* pass train=False'):
        loss_fn(params, batch)


def test_bare_parameters_and_mutable_are_refused(variables):
    with pytest.raises(InputError, match="wrap bare parameters as"):
        from_linen(Net(), variables["params"], squared, train=False)
    with pytest.raises(InputError, match="drop mutable="):
        from_linen(Net(), variables, squared, train=False, mutable=["batch_stats"])


@pytest.mark.parametrize("call", [lambda f: f, lambda f: jax.jit(f, static_argnames="train")])
def test_stateful_train_mode_moves_the_statistics(batch, variables, call):
    stateful_loss, (params, state) = stateful_from_linen(
        Net(), variables, squared, rngs=("dropout",)
    )
    run = call(stateful_loss)
    losses, moved = run(params, state, batch, train=True, key=jax.random.key(1))
    assert losses.shape == (8,)
    mean = moved["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * batch["x"].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(state["batch_stats"]["BatchNorm_0"]["mean"], np.zeros(2))
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    other, _ = run(params, state, batch, train=True, key=jax.random.key(2))
    assert not np.array_equal(losses, other)


def test_stateful_eval_mode_equals_the_frozen_loss_and_keeps_the_state(batch, variables):
    loss_fn, _ = from_linen(Net(), variables, squared, train=False)
    stateful_loss, (params, state) = stateful_from_linen(Net(), variables, squared)
    losses, same = stateful_loss(params, state, batch, train=False)
    np.testing.assert_array_equal(losses, loss_fn(params, batch))
    assert same is state


def test_stateful_without_a_mode_or_a_state(batch):
    module = nn.Dense(1)
    variables = module.init(jax.random.key(0), batch["x"])
    stateful_loss, (params, state) = stateful_from_linen(
        module,
        variables,
        lambda out, batch: squared(out[:, 0], batch),
        train_kwargs={},
        eval_kwargs={},
    )
    trained, moved = stateful_loss(params, state, batch, train=True)
    evaluated, _ = stateful_loss(params, state, batch, train=False)
    assert moved == state == {}
    np.testing.assert_array_equal(trained, evaluated)


def test_stateful_train_mode_asks_for_its_key(batch, variables):
    stateful_loss, (params, state) = stateful_from_linen(
        Net(), variables, squared, rngs=("dropout",)
    )
    with pytest.raises(InputError, match=r"draws from \['dropout'\] in train mode: pass key="):
        stateful_loss(params, state, batch, train=True)
    stateful_loss, _ = stateful_from_linen(Net(), variables, squared)
    with pytest.raises(InputError, match="name its random streams in rngs="):
        stateful_loss(params, state, batch, train=True)


def test_stateful_keywords_are_checked(variables):
    with pytest.raises(InputError, match=r"such as eval_kwargs=\{\.\.\.\}"):
        stateful_from_linen(Net(), variables, squared, eval_kwargs={"training": False})
