"""Whitened similarity of features against numpy's own covariance, and where it must refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf import attribute
from jaxinf.errors import InputError
from jaxinf.influence import group_queries, representation_similarity

FLAT = lambda params, batch: batch["x"]


def correlated(count, seed, size=6):
    """Rows with a common mean and a covariance far from round."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(size, size)) * np.logspace(0, -2, size)
    return {"x": (rng.normal(size=(count, size)) @ mix + 3).astype(np.float32)}


def expected(train, queries, damping):
    """The same from numpy in float64."""
    x, q = (np.asarray(part["x"], np.float64) for part in (train, queries))
    covariance = np.cov(x.T, bias=True)
    covariance += damping * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    factor = np.linalg.cholesky(np.linalg.inv(covariance))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    return unit((q - x.mean(0)) @ factor) @ unit((x - x.mean(0)) @ factor).T


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_whitened_is_the_cosine_in_the_metric_of_the_covariance(damping):
    train, queries = correlated(50, 0), correlated(4, 1)
    method = representation_similarity(FLAT, metric="whitened", damping=damping)
    # 50 rows in batches of 16: the padding of the last must not count
    found = attribute(method, (), queries, train, batch_size=16, progress=False).scores
    np.testing.assert_allclose(found, expected(train, queries, damping), atol=2e-4)
    plain = attribute(
        representation_similarity(FLAT), (), queries, train, batch_size=16, progress=False
    ).scores
    assert np.abs(plain - found).max() > 0.5


def test_directions_without_variance_count_for_nothing():
    train, queries = correlated(50, 0), correlated(4, 1)
    method = representation_similarity(FLAT, metric="whitened", damping=0.0)
    flat = lambda part: {"x": np.concatenate([part["x"], np.full((len(part["x"]), 2), 7.0)], 1)}
    narrow = attribute(method, (), queries, train, progress=False).scores
    wide = attribute(
        method,
        (),
        jax.tree.map(np.float32, flat(queries)),
        jax.tree.map(np.float32, flat(train)),
        progress=False,
    ).scores
    np.testing.assert_allclose(wide, narrow, atol=2e-3)


def test_a_group_is_the_mean_of_its_members():
    train, queries = correlated(30, 0), correlated(4, 1)
    method = representation_similarity(FLAT, metric="whitened")
    each = attribute(method, (), queries, train, progress=False).scores
    groups = group_queries(queries, np.array([0, 0, 1, 1]))
    found = attribute(method, (), groups, train, progress=False).scores
    np.testing.assert_allclose(found, each.reshape(2, 2, -1).mean(1), atol=1e-5)


def test_what_cannot_be_whitened_is_refused():
    train = correlated(8, 0)
    method = representation_similarity(FLAT, metric="whitened")
    batches = iter([jax.tree.map(jnp.asarray, train)])
    with pytest.raises(InputError, match="whitened similarity passes over the training set"):
        attribute(method, (), train, batches, progress=False)
    with pytest.raises(InputError, match="damping must not be negative"):
        representation_similarity(FLAT, metric="whitened", damping=-1.0)
