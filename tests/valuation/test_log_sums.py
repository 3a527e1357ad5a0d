"""Both soft minima from one exponential, against two log-sum-exps in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from scipy.special import logsumexp

from jaxinf.valuation import log_sums as module
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.log_sums import both_log_sums, two_log_sums


def drawn(n=37, m=23, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)).astype("f"), rng.normal(size=(m, 3)).astype("f")
    labels = rng.integers(2, size=n).astype("i4"), rng.integers(2, size=m).astype("i4")
    table = jnp.array([[0.0, 2.0], [2.0, 0.0]])
    geometry = ClassWiseGeometry(jnp.asarray(x), jnp.asarray(y), *map(jnp.asarray, labels), table)
    return geometry, rng.normal(size=n).astype("f"), rng.normal(size=m).astype("f")


def by_scipy(geometry, u, v, epsilon):
    cost = np.asarray(geometry.cost_matrix, np.float64) / epsilon
    return logsumexp(v[None] - cost, axis=1), logsumexp(u[:, None] - cost, axis=0)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("piece", [23 * 5, 1 << 18])
def test_they_are_log_sums(monkeypatch, held, piece):
    # pieces of 8 rows do not divide 37: the last one overlaps the one before
    monkeypatch.setattr(module, "piece_entries", lambda: piece)
    geometry, u, v = drawn()
    read = Geometry(geometry.cost_matrix) if held else geometry
    for found, wanted in zip(
        both_log_sums(read, u, v, jnp.float32(0.3)), by_scipy(geometry, u, v, 0.3), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_tiles_with_padding_change_nothing():
    geometry, u, v = drawn()
    geometry.tile_rows = 16
    for found, wanted in zip(
        both_log_sums(geometry, u, v, jnp.float32(0.3)), by_scipy(geometry, u, v, 0.3), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_potentials_out_of_range_take_the_plain_way():
    geometry, u, v = drawn()
    # the plan's row 3 is beyond float32, its column 5 below
    u, v = u + np.eye(37, dtype="f")[3] * 200, v - np.eye(23, dtype="f")[5] * 300
    found = both_log_sums(geometry, u, v, jnp.float32(0.3))
    for one, wanted in zip(found, by_scipy(geometry, u, v, 0.3), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-4)


def test_rows_and_columns_of_no_mass_are_left_out():
    geometry, u, v = drawn()
    wanted = by_scipy(geometry, np.where(np.arange(37) < 30, u, -np.inf), v, 0.3)[1]
    rows, columns = both_log_sums(
        geometry, jnp.where(jnp.arange(37) < 30, u, -jnp.inf), v, jnp.float32(0.3)
    )
    np.testing.assert_allclose(columns, wanted, rtol=1e-5, atol=1e-5)
    assert np.all(rows[30:] == 0)
    # a device that holds nothing but padding
    nothing = both_log_sums(geometry, jnp.full(37, -jnp.inf), v, jnp.float32(0.3))
    assert np.all(np.asarray(nothing[1]) == -np.inf)


def test_the_mean_cost_from_moments():
    geometry, u, v = drawn()
    a, b = jax.nn.softmax(u), jax.nn.softmax(v)
    wanted = a @ geometry.cost_matrix @ b
    np.testing.assert_allclose(geometry.mean_under(a, b), wanted, rtol=1e-5)
    shares = ClassWiseGeometry(
        geometry.x,
        geometry.y,
        jax.nn.one_hot(geometry.x_labels, 2),
        jax.nn.one_hot(geometry.y_labels, 2),
        geometry.label_distances,
    )
    np.testing.assert_allclose(shares.mean_under(a, b), wanted, rtol=1e-5)


def test_two_log_sums_are_the_same():
    geometry, u, v = drawn()
    both = both_log_sums(geometry, u, v, jnp.float32(0.3))
    for one, other in zip(both, two_log_sums(geometry, u, v, jnp.float32(0.3)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
