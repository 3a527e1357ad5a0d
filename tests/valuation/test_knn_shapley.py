"""KNN-Shapley against the definition, written out in plain numpy."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.valuation.knn_shapley import knn_shapley


def make_sets(n=6, m=3, d=2, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, d)).astype(np.float32),
        rng.integers(classes, size=n),
        rng.normal(size=(m, d)).astype(np.float32),
        rng.integers(classes, size=m),
    )


def vote_share(subset, sets, num_neighbours):
    x, y, valid_x, valid_y = sets
    subset = np.array(subset, int)
    shares = []
    for features, label in zip(valid_x, valid_y, strict=True):
        distances = np.linalg.norm(x[subset] - features, axis=1)
        nearest = subset[np.argsort(distances, kind="stable")[:num_neighbours]]
        shares.append(np.sum(y[nearest] == label) / num_neighbours)
    return np.mean(shares)


def shapley_by_definition(sets, num_neighbours):
    n = len(sets[0])
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            weight = 1 / (n * math.comb(n - 1, size))
            for subset in itertools.combinations(others, size):
                with_i = vote_share((*subset, i), sets, num_neighbours)
                values[i] += weight * (with_i - vote_share(subset, sets, num_neighbours))
    return values


@pytest.mark.parametrize("num_neighbours", [1, 2, 5, 6, 20])
def test_the_definition(num_neighbours):
    sets = make_sets()
    values = knn_shapley(*sets, num_neighbours=num_neighbours).values
    expected = shapley_by_definition(sets, num_neighbours)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_one_example_votes_alone():
    x = np.array([[0.0], [1.0]], np.float32)
    valid_labels = np.array([4, 4])
    values = knn_shapley(x[:1], np.array([4]), x, valid_labels, num_neighbours=5).values
    np.testing.assert_allclose(values, [1 / 5], rtol=1e-6)


def test_values_sum_to_the_utility_of_all():
    sets = make_sets(n=200, m=30, d=5, classes=3)
    values = knn_shapley(*sets, num_neighbours=7).values
    everything = vote_share(range(200), sets, 7)
    assert float(values.sum()) == pytest.approx(everything, abs=1e-5)
    assert np.abs(values).max() <= 1 / 7 + 1e-6


def test_values_move_with_their_examples():
    x, y, *valid = make_sets(n=40, m=10)
    order = np.random.default_rng(1).permutation(40)
    values = np.asarray(knn_shapley(x, y, *valid).values)
    np.testing.assert_allclose(
        knn_shapley(x[order], y[order], *valid).values, values[order], atol=1e-6
    )


@pytest.mark.parametrize("batch_size", [1, 4, 13, 100])
def test_batches_change_nothing(batch_size):
    sets = make_sets(n=20, m=13)
    expected = knn_shapley(*sets, batch_size=5).values
    values = knn_shapley(*sets, batch_size=batch_size).values
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_jit_with_everything_traced():
    sets = make_sets(n=20, m=13)
    method = functools.partial(knn_shapley, num_neighbours=3)
    np.testing.assert_allclose(jax.jit(method)(*sets).values, method(*sets).values, atol=1e-6)


def test_a_common_shift_changes_nothing():
    x, y, valid_x, valid_y = make_sets(n=30, m=10)
    shifted = knn_shapley(x + 300, y, valid_x + 300, valid_y).values
    np.testing.assert_allclose(shifted, knn_shapley(x, y, valid_x, valid_y).values, atol=1e-6)


def test_images_and_any_integer_labels():
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(12, 4, 4, 1)).astype(np.uint8)
    y = np.array([-3, 70] * 6)
    values = knn_shapley(x, y, x, y, num_neighbours=1).values
    assert values.shape == (12,)
    assert float(values.sum()) == pytest.approx(1, abs=1e-5)


def test_wrong_labels_are_worth_least():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=60)
    x = (rng.normal(size=(60, 2)) + 6 * y[:, None]).astype(np.float32)
    noisy = y.copy()
    noisy[:6] = 1 - noisy[:6]
    values = np.asarray(knn_shapley(x, noisy, x, y).values)
    assert values[:6].max() < values[6:].min()


@pytest.mark.parametrize("option", ["num_neighbours", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_counts_must_be_positive(option, value):
    with pytest.raises(InputError, match=f"{option} is {value}"):
        knn_shapley(*make_sets(), **{option: value})


def test_nan_is_refused():
    x, y, *valid = make_sets()
    x[2, 0] = np.nan
    with pytest.raises(InputError, match="first in example 2"):
        knn_shapley(x, y, *valid)
