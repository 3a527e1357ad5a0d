import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.adapters import from_equinox
from jaxinf.errors import InputError, MissingExtraError


class Counting(eqx.Module):
    """Writes to its state at every call, which uses an equinox State up."""

    weight: jax.Array
    count: eqx.nn.StateIndex

    def __init__(self):
        self.weight = jnp.ones(2)
        self.count = eqx.nn.StateIndex(jnp.array(0))

    def __call__(self, x, state):
        return x @ self.weight, state.set(self.count, state.get(self.count) + 1)


def first(outputs, batch):
    return outputs


@pytest.fixture
def batch():
    return {"x": jnp.arange(8.0).reshape(4, 2)}


def test_a_model_of_one_example_is_mapped_over_the_batch(batch):
    model = eqx.nn.MLP(2, "scalar", 3, 1, key=jax.random.key(0))
    loss_fn, params = from_equinox(model, first)
    expected = [model(row) for row in batch["x"]]
    np.testing.assert_allclose(loss_fn(params, batch), jnp.stack(expected), rtol=1e-6)


def test_a_model_of_a_whole_batch_is_not(batch):
    class Linear(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return x @ self.weight

    loss_fn, params = from_equinox(Linear(jnp.ones(2)), first, vmap=False)
    np.testing.assert_array_equal(loss_fn(params, batch), batch["x"].sum(axis=1))


@pytest.mark.parametrize("vmap", [True, False])
def test_a_state_that_the_model_writes_to_stays_usable(batch, vmap):
    model, state = eqx.nn.make_with_state(Counting)()
    loss_fn, params = from_equinox(model, first, state=state, vmap=vmap)
    for _ in range(2):
        np.testing.assert_array_equal(loss_fn(params, batch), batch["x"].sum(axis=1))
    assert int(state.get(model.count)) == 0


def test_dropout_is_off_and_the_users_model_keeps_its_mode(batch):
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(2, "scalar", key=jax.random.key(0)), eqx.nn.Dropout(0.5)]
    )
    loss_fn, params = from_equinox(model, first)
    expected = jax.vmap(model.layers[0])(batch["x"])
    np.testing.assert_allclose(loss_fn(params, batch), expected, rtol=1e-6)
    assert not model.layers[1].inference


def test_a_model_without_arrays_is_refused():
    with pytest.raises(InputError, match="Identity holds no floating-point jax arrays"):
        from_equinox(eqx.nn.Identity(), first)


def test_without_equinox_the_message_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    from jaxinf.adapters.equinox import from_equinox

    with pytest.raises(MissingExtraError, match="pip install equinox"):
        from_equinox(None, first)
