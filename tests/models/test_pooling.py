"""Max-pooling against flax's windowed maximum, forwards and backwards."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.models.pooling import max_pool


def windowed(x, size):
    return nn.max_pool(x, (size, size), strides=(size, size))


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 6, 4, 3), 2), ((2, 7, 9, 2), 2), ((1, 7, 8, 1), 3)]
)
def test_values_and_derivatives_are_those_of_the_windowed_maximum(shape, size):
    keys = jax.random.split(jax.random.key(0), 3)
    x, tangent = (jax.random.normal(key, shape) for key in keys[:2])
    weights = jax.random.normal(keys[2], windowed(x, size).shape)
    found, wanted = max_pool(x, size), windowed(x, size)
    np.testing.assert_array_equal(found, wanted)
    of = lambda pool: lambda x: (weights * pool(x, size)).sum()
    np.testing.assert_array_equal(jax.grad(of(max_pool))(x), jax.grad(of(windowed))(x))
    moved = [jax.jvp(of(pool), (x,), (tangent,))[1] for pool in (max_pool, windowed)]
    np.testing.assert_allclose(*moved, rtol=1e-6)


def test_equal_maxima_share_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))
