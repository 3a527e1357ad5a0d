"""The models behind the utilities, against scikit-learn and their own objective."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxinf.errors import InputError
from jaxinf.valuation.logistic import (
    correctness,
    fit_logistic,
    neighbourhood,
    standardised_designs,
)
from jaxinf.valuation.semivalues import marginal_contributions
from jaxinf.valuation.utility import evaluate, knn_utility, logistic_utility


def make_sets(n=40, m=15, d=4, classes=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, d))
    y, valid_y = np.arange(n) % classes, rng.integers(classes, size=m)
    x = centres[y] + rng.normal(size=(n, d))
    valid_x = centres[valid_y] + rng.normal(size=(m, d))
    return x.astype(dtype), y, valid_x.astype(dtype), valid_y


def objective(coefficients, x, targets, weights, l2):
    losses = -jnp.sum(jax.nn.log_softmax(x @ coefficients) * targets, axis=1)
    return jnp.sum(weights * losses) + l2 / 2 * jnp.sum(coefficients**2)


@pytest.mark.parametrize("l2", [0.01, 1.0, 30.0])
def test_the_fit_is_scikit_learns(l2):
    x, y, *_ = make_sets()
    weights = np.random.default_rng(1).integers(4, size=40).astype(np.float32)
    fit = fit_logistic(x, jax.nn.one_hot(y, 3), weights, l2=l2, tolerance=1e-6)
    model = LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-8, max_iter=10_000)
    model.fit(x.astype(np.float64), y, sample_weight=weights)
    assert float(fit.gradient_norm) <= 1e-6
    np.testing.assert_allclose(fit.coefficients, model.coef_.T, atol=2e-3 / l2**0.5)


def test_the_gradient_is_what_the_fit_says(x64):
    x, y, *_ = make_sets(dtype=np.float64)
    targets, weights = jax.nn.one_hot(y, 3, dtype=float), np.linspace(0, 2, 40)
    for max_steps in (3, 1000):
        fit = fit_logistic(x, targets, weights, l2=0.1, tolerance=1e-10, max_steps=max_steps)
        gradient = jax.grad(objective)(fit.coefficients, x, targets, weights, 0.1)
        norm = np.abs(gradient).max() / weights.sum()
        assert float(fit.gradient_norm) == pytest.approx(norm, rel=1e-3, abs=1e-13)
    assert float(fit.gradient_norm) <= 1e-10
    assert 3 < int(fit.num_steps) < 1000


def test_an_early_stop_shows():
    x, y, *_ = make_sets()
    fit = fit_logistic(x, jax.nn.one_hot(y, 3), np.ones(40, np.float32), l2=1e-3, max_steps=2)
    assert int(fit.num_steps) == 2
    assert float(fit.gradient_norm) > 1e-3


@pytest.mark.parametrize("l2", [1e-4, 1.0])
def test_separable_badly_scaled_and_tiny_subsets_converge(l2):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = (rng.normal(size=(30, 5)) * np.array([1e-2, 1, 1, 10, 100]) + 40 * y[:, None]).astype(
        np.float32
    )
    masks = jnp.array(rng.random((20, 30)) < rng.random((20, 1)), jnp.float32)
    design, _ = standardised_designs(x, x)
    fit = jax.vmap(
        lambda mask: fit_logistic(design, jax.nn.one_hot(y, 2), mask, l2=l2, tolerance=1e-4)
    )(masks)
    assert np.isfinite(fit.coefficients).all()
    assert fit.gradient_norm.max() <= 1e-4


@pytest.mark.parametrize("width", [3, 50])
def test_a_fit_near_another_has_the_same_minimum_after_fewer_steps(x64, width):
    """One example comes, goes, or none; with more columns than examples the bound needs it most."""
    x, y, *_ = make_sets(d=width, dtype=np.float64)
    x[7] *= 30  # far outside of what the bound without it allows
    targets = jax.nn.one_hot(y, 3, dtype=float)
    there = np.ones(40)
    there[7] = 0
    options = {"l2": 0.1, "tolerance": 1e-9, "max_steps": 5000}
    near = neighbourhood(x, targets, there, **options)
    steps = []
    for row, weight in ((7, 1.0), (3, 0.0), (7, 0.0)):
        weights = there.copy()
        weights[row] = weight
        anew = fit_logistic(x, targets, weights, **options)
        found = fit_logistic(x, targets, weights, near=near, **options)
        assert float(found.gradient_norm) <= 1e-9
        np.testing.assert_allclose(found.coefficients, anew.coefficients, atol=1e-5)
        steps.append((int(found.num_steps), int(anew.num_steps)))
    assert steps[1][0] < steps[1][1]
    assert steps[2][0] == 0


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood"])
def test_contributions_near_a_subset_are_those_of_two_fits(x64, metric, warm):
    sets = make_sets(dtype=np.float64)
    utility = logistic_utility(*sets, metric=metric, tolerance=1e-9)
    mask = (np.arange(40) % 3 > 0).astype(float)
    near = utility.around(jnp.asarray(mask), warm=warm)
    found = marginal_contributions(near, jnp.asarray(mask), batch_size=16)
    toggled = np.abs(mask - np.eye(40))
    expected = np.where(mask > 0, 1, -1) * (utility(mask) - evaluate(utility, toggled))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(expected).max() > 1e-3


def test_zero_weights_leave_examples_out_and_counts_repeat_them():
    x, y, *_ = make_sets()
    targets = jax.nn.one_hot(y, 3)
    counts = np.random.default_rng(1).integers(3, size=40)
    fit = functools.partial(fit_logistic, tolerance=1e-6)
    weighted = fit(x, targets, counts)
    repeated = fit(np.repeat(x, counts, 0), np.repeat(targets, counts, 0), np.ones(counts.sum()))
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, atol=1e-4)


def test_models_side_by_side_are_finite_at_a_size_where_xla_gave_nan():
    x = np.random.default_rng(0).normal(size=(2000, 785)).astype(np.float32)
    targets = jax.nn.one_hot(np.arange(2000) % 10, 10)
    weights = np.ones((2, 2000), np.float32)
    fits = jax.vmap(lambda w: fit_logistic(x, targets, w, max_steps=0))(weights)
    expected = np.abs(x.T @ (0.1 - np.asarray(targets))).max() / 2000
    np.testing.assert_allclose(fits.gradient_norm, expected, rtol=1e-4)


@pytest.mark.parametrize("d", [4, 60])
def test_the_utility_is_scikit_learns(d):
    """60 columns for 40 examples go through the rotation into the training span."""
    x, y, valid_x, valid_y = make_sets(d=d)
    mask = np.arange(40) % 4 > 0
    utility = logistic_utility(
        x, y, valid_x, valid_y, metric="log_likelihood", l2=2.0, tolerance=1e-6
    )
    mean, std = x.mean(0), x.std(0)
    design = np.c_[(x - mean) / std, np.ones(40)].astype(np.float64)
    valid = np.c_[(valid_x - mean) / std, np.ones(15)]
    model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8, max_iter=10_000)
    model.fit(design[mask], y[mask])
    expected = model.predict_log_proba(valid)[np.arange(15), valid_y].mean()
    assert float(utility(jnp.asarray(mask, jnp.float32))) == pytest.approx(expected, abs=1e-4)
    accuracy = logistic_utility(x, y, valid_x, valid_y, l2=2.0, tolerance=1e-6)
    assert float(accuracy(jnp.asarray(mask, jnp.float32))) == pytest.approx(
        model.score(valid, valid_y), abs=1e-6
    )


@pytest.mark.parametrize(
    ("metric", "guess"), [("accuracy", 1 / 3), ("log_likelihood", -math.log(3))]
)
def test_no_examples_guess_and_one_class_is_defined(metric, guess):
    x, y, valid_x, valid_y = make_sets()
    utility = logistic_utility(x, y, valid_x, valid_y, metric=metric)
    masks = np.stack([np.zeros(40), y == 1, np.arange(40) == 3]).astype(np.float32)
    nothing, *some = evaluate(utility, masks)
    assert float(nothing) == pytest.approx(guess, rel=1e-6)
    assert np.isfinite(some).all()
    # examples of class 1 alone favour it where they lie
    fit = fit_logistic(utility.train_design, utility.train_targets, masks[1])
    logits = x[y == 1].mean(0, keepdims=True) @ fit.coefficients[:-1] + fit.coefficients[-1:]
    assert int(logits.argmax()) == 1


def test_ties_are_shared():
    logits = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(correctness(logits, jnp.eye(3)[:2]), [0.5, 1.0])


def test_constant_columns_do_no_harm():
    x, y, valid_x, valid_y = make_sets()
    mask = jnp.ones(40)
    plain = logistic_utility(x, y, valid_x, valid_y, metric="log_likelihood", tolerance=1e-6)
    constant = np.full((40, 1), 0.1, np.float32)
    wider = logistic_utility(
        np.hstack([x, constant]),
        y,
        np.hstack([valid_x, constant[:15]]),
        valid_y,
        metric="log_likelihood",
        tolerance=1e-6,
    )
    assert float(wider(mask)) == pytest.approx(float(plain(mask)), abs=1e-5)


def test_units_do_not_matter():
    x, y, valid_x, valid_y = make_sets()
    units = np.array([1, 100, 0.01, 7], np.float32)
    masks = np.random.default_rng(0).integers(2, size=(9, 40)).astype(np.float32)
    plain = logistic_utility(x, y, valid_x, valid_y, metric="log_likelihood")
    scaled = logistic_utility(x * units, y, valid_x * units, valid_y, metric="log_likelihood")
    np.testing.assert_allclose(evaluate(scaled, masks), evaluate(plain, masks), atol=1e-4)


@pytest.mark.parametrize("make", [logistic_utility, knn_utility])
def test_batches_and_single_masks_agree(make):
    utility = make(*make_sets())
    masks = np.random.default_rng(0).integers(2, size=(9, 40)).astype(np.float32)
    one_by_one = [float(jax.jit(utility)(mask)) for mask in jnp.asarray(masks)]
    assert np.ptp(one_by_one) > 0
    for batch_size in (1, 4, 9, 64):
        np.testing.assert_allclose(
            evaluate(utility, masks, batch_size=batch_size), one_by_one, atol=1e-6
        )


def test_a_utility_moves_with_its_examples():
    x, y, *valid = make_sets()
    order = np.random.default_rng(0).permutation(40)
    mask = jnp.asarray(np.arange(40) % 2, jnp.float32)
    for make in (functools.partial(logistic_utility, metric="log_likelihood"), knn_utility):
        moved = make(x[order], y[order], *valid)(mask[order])
        assert float(moved) == pytest.approx(float(make(x, y, *valid)(mask)), abs=1e-4)


@pytest.mark.parametrize("num_neighbours", [1, 4, 100])
def test_knn_votes_by_definition(num_neighbours):
    x, y, valid_x, valid_y = make_sets()
    utility = knn_utility(x, y, valid_x, valid_y, num_neighbours=num_neighbours)
    masks = np.random.default_rng(0).integers(2, size=(5, 40))
    masks[0] = 0
    masks[1, 3:] = 0
    expected = []
    for mask in masks.astype(bool):
        distances = np.linalg.norm(valid_x[:, None] - x[None, mask], axis=-1)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :num_neighbours]
        right = y[mask][nearest] == valid_y[:, None]
        expected.append(right.sum() / num_neighbours / len(valid_y))
    np.testing.assert_allclose(evaluate(utility, masks), expected, atol=1e-6)


def test_features_may_be_traced_but_labels_not():
    x, y, valid_x, valid_y = make_sets()
    worth = lambda x: logistic_utility(x, y, valid_x, valid_y)(jnp.ones(40))
    assert float(jax.jit(worth)(x)) == pytest.approx(float(worth(x)), abs=1e-6)
    with pytest.raises(InputError, match="labels are traced"):
        jax.jit(lambda y: logistic_utility(x, y, valid_x, valid_y)(jnp.ones(40)))(y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "f1"}, "metric is 'f1'"),
        ({"l2": 0.0}, "l2 is 0.0: a positive"),
        ({"l2": np.inf}, "l2 is inf"),
        ({"tolerance": -1e-3}, "tolerance is -0.001"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        logistic_utility(*make_sets(), **options)


def test_a_single_class_is_refused():
    x, y, valid_x, valid_y = make_sets()
    with pytest.raises(InputError, match="every label is 0"):
        logistic_utility(x, 0 * y, valid_x, 0 * valid_y)


def test_bad_counts_masks_and_utilities():
    with pytest.raises(InputError, match="num_neighbours is 0"):
        knn_utility(*make_sets(), num_neighbours=0)
    with pytest.raises(InputError, match="batch_size is 0"):
        knn_utility(*make_sets(), batch_size=0)
    utility = knn_utility(*make_sets())
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate(utility, np.ones((2, 40)), batch_size=0)
    with pytest.raises(InputError, match=r"masks have shape \[40\]"):
        evaluate(utility, np.ones(40, np.float32))
    with pytest.raises(InputError, match=r"returns shape \(3,\)"):
        evaluate(lambda mask: mask, np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="utility is str"):
        evaluate("accuracy", np.ones((2, 3), np.float32))
