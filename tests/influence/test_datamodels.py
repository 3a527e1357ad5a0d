import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.evaluation import linear_datamodeling_score
from jaxinf.influence.ground_truth import draw_subsets, fit_datamodels


def problem(num_models, num_examples, noise=0.0, num_queries=3):
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(num_queries, num_examples))
    subsets = draw_subsets(num_models, num_examples, seed=1)
    outputs = subsets @ effects.T + 2
    return effects, subsets, outputs + noise * rng.normal(size=outputs.shape)


@pytest.mark.parametrize("size", [(60, 12), (20, 30)])
def test_ridge_is_scikit_learns(size):
    linear_model = pytest.importorskip("sklearn.linear_model")
    _, subsets, outputs = problem(*size, noise=0.5)
    found = fit_datamodels(subsets, outputs, penalty=0.7)
    model = linear_model.Ridge(alpha=0.7).fit(subsets.astype(float), outputs)
    np.testing.assert_allclose(found.influences, model.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.intercepts, model.intercept_, rtol=1e-8)


def test_errors_are_those_of_leaving_each_model_out():
    linear_model = pytest.importorskip("sklearn.linear_model")
    _, subsets, outputs = problem(25, 10, noise=1.0, num_queries=1)
    found = fit_datamodels(subsets, outputs, penalty=2.0)
    misses = []
    for s in range(25):
        rest = np.arange(25) != s
        model = linear_model.Ridge(alpha=2.0).fit(subsets[rest].astype(float), outputs[rest, 0])
        misses.append(model.predict(subsets[s : s + 1].astype(float))[0] - outputs[s, 0])
    expected = np.mean(np.square(misses)) / outputs.var()
    np.testing.assert_allclose(found.errors, expected, rtol=1e-8)


def test_with_enough_models_the_true_effects_are_found():
    effects, subsets, outputs = problem(200, 20)
    found = fit_datamodels(subsets, outputs)
    # subsets of one size tell effects only up to a constant
    centred = effects - effects.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.influences, centred, atol=0.01)
    assert (found.errors < 1e-3).all()


def test_penalty_is_chosen_by_what_it_predicts():
    effects, subsets, outputs = problem(60, 40, noise=6.0)
    chosen = fit_datamodels(subsets, outputs)
    held_out = draw_subsets(200, 40, seed=9)
    score = lambda influences: linear_datamodeling_score(
        influences, held_out, held_out @ effects.T
    ).mean()
    little = fit_datamodels(subsets, outputs, penalty=1e-6)
    assert score(chosen.influences) > score(little.influences)
    assert (chosen.penalties > 1e-6).all()


def test_noise_is_not_predicted():
    subsets = draw_subsets(40, 80, seed=2)
    outputs = np.random.default_rng(3).normal(size=(40, 5))
    assert fit_datamodels(subsets, outputs).errors.min() > 0.7


def test_lasso_is_sparse():
    pytest.importorskip("sklearn")
    subsets = draw_subsets(120, 30, seed=4)
    truth = np.zeros((1, 30))
    truth[0, [3, 8]] = [2.0, -1.5]
    noise = 0.1 * np.random.default_rng(5).normal(size=(120, 1))
    found = fit_datamodels(subsets, subsets @ truth.T + noise, kind="lasso", penalty=0.05)
    assert set(np.flatnonzero(np.abs(found.influences[0]) > 0.01)) == {3, 8}
    assert fit_datamodels(subsets, subsets @ truth.T + noise, kind="lasso").errors[0] < 0.05


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (np.zeros((4, 1)), {}, "do not fit"),
        (np.zeros(6), {}, "do not fit"),
        (np.full((6, 1), np.nan), {}, "NaN"),
        (np.zeros((6, 1)), {"penalty": 0.0}, "penalty is 0.0"),
        (np.zeros((6, 1)), {"kind": "huber"}, "'lasso'"),
    ],
)
def test_bad_input(outputs, options, message):
    with pytest.raises(InputError, match=message):
        fit_datamodels(draw_subsets(6, 4, seed=0), outputs, **options)


def test_too_few_models():
    with pytest.raises(InputError, match="at least 3"):
        fit_datamodels(draw_subsets(2, 4, seed=0), np.zeros((2, 1)))
