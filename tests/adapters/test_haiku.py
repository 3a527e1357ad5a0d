import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.adapters import from_haiku
from jaxinf.errors import InputError


def net(x):
    return hk.Linear(1)(x)[:, 0]


def noisy(x):
    return net(x) + hk.get_state("shift", (), init=jnp.zeros) + jax.random.normal(hk.next_rng_key())


def first(outputs, batch):
    return outputs


@pytest.fixture
def batch():
    return {"x": jnp.arange(8.0).reshape(4, 2)}


@pytest.mark.parametrize("wrap", [lambda f: f, hk.without_apply_rng])
def test_with_and_without_an_rng(batch, wrap):
    transformed = wrap(hk.transform(net))
    params = transformed.init(jax.random.key(0), batch["x"])
    loss_fn, same = from_haiku(transformed, params, first)
    assert same is params
    expected = batch["x"] @ params["linear"]["w"][:, 0] + params["linear"]["b"]
    np.testing.assert_allclose(loss_fn(params, batch), expected, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, hk.without_apply_rng])
def test_with_a_state(batch, wrap):
    def shifted(x):
        return net(x) + hk.get_state("shift", (), init=jnp.zeros)

    transformed = wrap(hk.transform_with_state(shifted))
    params, state = transformed.init(jax.random.key(0), batch["x"])
    base, _ = from_haiku(transformed, params, first, state=state)
    moved = jax.tree.map(lambda leaf: leaf + 3, state)
    loss_fn, _ = from_haiku(transformed, params, first, state=moved)
    np.testing.assert_allclose(loss_fn(params, batch), base(params, batch) + 3, rtol=1e-6)


def test_the_rng_reaches_the_function(batch):
    transformed = hk.transform_with_state(noisy)
    params, state = transformed.init(jax.random.key(0), batch["x"])
    for seed in (1, 2):
        loss_fn, _ = from_haiku(transformed, params, first, state=state, rng=jax.random.key(seed))
        expected, _ = transformed.apply(params, state, jax.random.key(seed), batch["x"])
        np.testing.assert_array_equal(loss_fn(params, batch), expected)


def test_a_state_too_many_or_too_few_is_refused():
    with pytest.raises(InputError, match="takes a state: pass state="):
        from_haiku(hk.transform_with_state(net), {}, first)
    with pytest.raises(InputError, match="takes no state: drop state="):
        from_haiku(hk.transform(net), {}, first, state={"shift": 0})
