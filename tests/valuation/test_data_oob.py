"""Data-OOB against bags fitted by scikit-learn."""

import functools

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxinf.errors import InputError
from jaxinf.valuation.data_oob import data_oob

KEY = jax.random.key(0)


def make_sets(n=30, m=6, wrong=4, d=3, seed=0, distance=2.5):
    """Three classes; the first `wrong` training labels are wrong."""
    rng = np.random.default_rng(seed)
    y = np.arange(n + m) % 3
    x = (rng.normal(size=(n + m, d)) + distance * np.eye(3, d)[y]).astype(np.float32)
    labels = y[:n].copy()
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return x[:n], labels, x[n:], y[n:]


def test_the_bags_fitted_by_scikit_learn():
    x, y, *valid = make_sets()
    result = data_oob(x, y, *valid, key=KEY, num_models=60, l2=2.0, tolerance=1e-6)
    design = np.c_[(x - x.mean(0)) / x.std(0), np.ones(30)].astype(np.float64)
    right, out = np.zeros((60, 30), bool), np.zeros((60, 30), bool)
    for bag, key in enumerate(jax.random.split(KEY, 60)):
        counts = np.bincount(jax.random.randint(key, (30,), 0, 30), minlength=30)
        model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8, max_iter=10_000)
        right[bag] = model.fit(design, y, sample_weight=counts).predict(design) == y
        out[bag] = counts == 0
    expected = np.where(out, right, 0).sum(0) / out.sum(0)
    np.testing.assert_allclose(result.values, expected, atol=1e-6)
    assert np.ptp(expected) > 0.5
    errors = [right[out[:, i], i].std(ddof=1) / np.sqrt(out[:, i].sum()) for i in range(30)]
    np.testing.assert_allclose(result.standard_errors, errors, atol=1e-6)
    assert result.num_evaluations == 60


def test_standard_errors_are_what_new_keys_do():
    sets = make_sets(distance=1.0)
    method = functools.partial(data_oob, *sets, num_models=50)
    results = jax.jit(lambda keys: jax.lax.map(lambda key: method(key=key), keys))(
        jax.random.split(KEY, 60)
    )
    spread = results.values.std(axis=0, ddof=1)
    claimed = np.sqrt(np.mean(np.square(results.standard_errors), axis=0))
    assert np.mean(spread) > 0.02
    np.testing.assert_allclose(np.mean(claimed), np.mean(spread), rtol=0.1)


def test_wrong_labels_are_worth_less():
    result = data_oob(*make_sets(distance=5), key=KEY, num_models=50)
    assert result.values[:4].max() < result.values[4:].min()


def test_the_validation_set_is_not_used():
    x, y, valid_x, valid_y = make_sets()
    values = data_oob(x, y, valid_x, valid_y, key=KEY, num_models=50).values
    others = data_oob(x, y, valid_x[:2] - 7, valid_y[:2], key=KEY, num_models=50).values
    np.testing.assert_array_equal(values, others)


def test_batches_change_nothing():
    sets = make_sets()
    values = data_oob(*sets, key=KEY, num_models=50, batch_size=7).values
    np.testing.assert_allclose(
        data_oob(*sets, key=KEY, num_models=50, batch_size=100).values, values, atol=1e-6
    )


def test_values_move_with_their_examples():
    x, y, *valid = make_sets()
    order = np.random.default_rng(1).permutation(30)
    first = data_oob(x, y, *valid, key=KEY, num_models=50)
    moved = data_oob(x[order], y[order], *valid, key=KEY, num_models=50)
    # the same random draws now meet other examples
    allowed = 5 * np.hypot(first.standard_errors[order], moved.standard_errors) + 0.05
    assert np.all(np.abs(moved.values - first.values[order]) <= allowed)


def test_features_may_be_traced_but_labels_not():
    x, y, *valid = make_sets()
    run = lambda x: data_oob(x, y, *valid, key=KEY, num_models=50).values
    np.testing.assert_allclose(jax.jit(run)(x), run(x), atol=1e-6)
    with pytest.raises(InputError, match="labels are traced"):
        jax.jit(functools.partial(data_oob, key=KEY))(x, y, *valid)


def test_too_few_bags_are_refused_and_nan_when_traced():
    x, y, *valid = make_sets()
    with pytest.raises(InputError, match=r"num_models is 3: example \d+ was out of bag in only"):
        data_oob(x, y, *valid, key=KEY, num_models=3)
    values = jax.jit(lambda x: data_oob(x, y, *valid, key=KEY, num_models=3).values)(x)
    assert np.isnan(values).any()
    assert not np.isnan(values).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_models": 1}, "num_models is 1"),
        ({"l2": 0.0}, "l2 is 0.0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"key": 3}, "key is int"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        data_oob(*make_sets(), **{"key": KEY, **options})


def test_bad_sets():
    x, y, valid_x, valid_y = make_sets()
    with pytest.raises(InputError, match="every label is 0"):
        data_oob(x, 0 * y, valid_x, 0 * valid_y, key=KEY)
    with pytest.raises(InputError, match="valid_features holds 18 NaN"):
        data_oob(x, y, valid_x * np.nan, valid_y, key=KEY)
