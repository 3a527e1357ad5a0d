import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.evaluation.randomisation import randomisation_check, scramble

X = np.random.default_rng(0).normal(size=(80, 40)).astype(np.float32)
PARAMS = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(6, 40)) ** 3, jnp.float32)}


def test_scores_of_the_parameters_change_and_scores_of_the_inputs_do_not():
    learnt = randomisation_check(lambda p: p["w"] @ X.T, PARAMS, key=jax.random.key(0))
    assert learnt.correlations.shape == (3, 6)
    assert abs(learnt.mean) < 0.3
    blind = randomisation_check(lambda p: X[:6] @ X.T, PARAMS, key=jax.random.key(0))
    np.testing.assert_array_equal(blind.correlations, 1)


def test_scrambling_keeps_the_numbers_and_follows_the_key():
    first, again, other = (scramble(PARAMS, jax.random.key(k))["w"] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(np.sort(np.ravel(first)), np.sort(np.ravel(PARAMS["w"])))
    assert (first != PARAMS["w"]).mean() > 0.9


def test_constant_scores_have_no_mean():
    found = randomisation_check(lambda p: np.ones((2, 5)), PARAMS, key=jax.random.key(0))
    assert np.isnan(found.mean)


def test_bad_input():
    with pytest.raises(InputError, match="num_draws is 0"):
        randomisation_check(lambda p: X, PARAMS, key=jax.random.key(0), num_draws=0)
    with pytest.raises(InputError, match="no gradient"):
        scramble({"w": jnp.arange(3)}, jax.random.key(0))
