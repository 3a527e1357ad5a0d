"""MMD values against automatic differentiation and retraining's counterpart, leaving out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.valuation.mmd import mmd_values


def make_sets(n=30, m=20, d=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y, valid_y = rng.integers(3, size=n), rng.integers(3, size=m)
    x = rng.normal(size=(n, d)) + 2 * np.eye(3, d)[y]
    valid_x = rng.normal(size=(m, d)) + 2 * np.eye(3, d)[valid_y] + 0.5
    return x.astype(dtype), y, valid_x.astype(dtype), valid_y


def squared_mmd(weights, sets, bandwidth):
    """By definition, for training masses that sum to one."""
    x, y = np.concatenate(sets[::2]), np.concatenate(sets[1::2])
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    kernel = np.exp(-squares / (2 * bandwidth**2)) * (y[:, None] == y[None])
    m = len(sets[2])
    signed = jnp.concatenate([weights, -np.ones(m) / m])
    return signed @ kernel @ signed


def test_the_derivative_by_autodiff(x64):
    sets = make_sets(dtype=np.float64)
    result = mmd_values(*sets, bandwidth=1.3)
    uniform = jnp.full(30, 1 / 30)

    def toward(i):
        moved = lambda eps: (1 - eps) * uniform + eps * (jnp.arange(30) == i)
        return jax.grad(lambda eps: squared_mmd(moved(eps), sets, 1.3))(0.0)

    expected = [-toward(i) for i in range(30)]
    np.testing.assert_allclose(result.values, expected, rtol=1e-10, atol=1e-13)
    assert float(result.squared_mmd) == pytest.approx(float(squared_mmd(uniform, sets, 1.3)))
    assert abs(float(result.values.sum())) < 1e-12


def test_leaving_one_out_in_the_limit(x64):
    """Removal moves MMD² by value / (N − 1), up to terms of order 1 / N²."""
    gaps = []
    for n in (50, 400):
        sets = make_sets(n=n, dtype=np.float64)
        values = mmd_values(*sets, bandwidth=1.3).values
        whole = squared_mmd(jnp.full(n, 1 / n), sets, 1.3)
        without = [
            squared_mmd((jnp.arange(n) != i) / (n - 1), sets, 1.3) - whole for i in range(20)
        ]
        gaps.append(np.abs((n - 1) * np.array(without) - values[:20]).max())
        assert np.corrcoef(without, values[:20])[0, 1] > 0.99
    assert gaps[1] < gaps[0] / 6


@pytest.mark.parametrize("n", [30, 3000])
def test_the_bandwidth_is_half_the_median_distance(n):
    """Of 3,000 rows a thousand are looked at."""
    sets = make_sets(n=n)
    x, valid_x = sets[0].astype(np.float64), sets[2].astype(np.float64)
    median = np.median(np.linalg.norm(x[:, None] - valid_x[None], axis=-1))
    result = mmd_values(*sets)
    assert float(result.bandwidth) == pytest.approx(median / 2, rel=1e-5 if n == 30 else 0.03)
    fixed = mmd_values(*sets, bandwidth=float(result.bandwidth))
    np.testing.assert_allclose(fixed.values, result.values, atol=1e-6)


def test_the_same_set_twice_has_no_discrepancy():
    x, y, *_ = make_sets()
    result = mmd_values(x, y, np.repeat(x, 3, 0), np.repeat(y, 3), bandwidth=1.0)
    np.testing.assert_allclose(result.values, 0, atol=1e-6)
    assert 0 <= float(result.squared_mmd) < 1e-6


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_batches_change_nothing(batch_size):
    sets = make_sets()
    values = mmd_values(*sets, batch_size=batch_size).values
    np.testing.assert_allclose(values, mmd_values(*sets, batch_size=11).values, atol=1e-6)


def test_values_move_with_their_examples():
    x, y, *valid = make_sets()
    order = np.random.default_rng(1).permutation(30)
    values = np.asarray(mmd_values(x, y, *valid).values)
    np.testing.assert_allclose(
        mmd_values(x[order], y[order], *valid).values, values[order], atol=1e-6
    )


def test_shifts_and_rotations_change_nothing():
    x, y, valid_x, valid_y = make_sets()
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    moved = mmd_values(x @ rotation + 20, y, valid_x @ rotation + 20, valid_y).values
    np.testing.assert_allclose(moved, mmd_values(x, y, valid_x, valid_y).values, atol=1e-5)


def test_jit_with_everything_traced():
    sets = make_sets()
    for method in (mmd_values, functools.partial(mmd_values, bandwidth=0.7)):
        np.testing.assert_allclose(jax.jit(method)(*sets).values, method(*sets).values, atol=1e-6)


def test_wrong_labels_are_worth_less():
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    x = (rng.normal(size=(600, 2)) + 4 * y[:, None]).astype(np.float32)
    noisy = y[:300].copy()
    noisy[:40] = 1 - noisy[:40]
    values = np.asarray(mmd_values(x[:300], noisy, x[300:], y[300:]).values)
    # share of pairs in the right order
    assert (values[40:, None] > values[None, :40]).mean() > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"bandwidth": np.nan}, "bandwidth is nan"),
        ({"bandwidth": "median"}, "bandwidth is 'median'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        mmd_values(*make_sets(), **options)


def test_bad_sets():
    x, y, valid_x, valid_y = make_sets()
    with pytest.raises(InputError, match="median distance between training and validation"):
        mmd_values(np.eye(30, 1, dtype=np.float32), y, np.zeros((20, 1), np.float32), valid_y)
    with pytest.raises(InputError, match="valid_features holds 60 NaN"):
        mmd_values(x, y, valid_x * np.nan, valid_y)
