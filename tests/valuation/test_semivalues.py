"""Semivalues on games with known answers, and on a trained model."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import betabinom

from jaxinf.errors import InputError
from jaxinf.valuation.banzhaf import data_banzhaf
from jaxinf.valuation.knn_shapley import knn_shapley
from jaxinf.valuation.semivalues import SampledValues, loo_values, marginal_contributions
from jaxinf.valuation.shapley import beta_shapley, data_shapley
from jaxinf.valuation.utility import evaluate, knn_utility, logistic_utility

KEY = jax.random.key(0)
SAMPLED = {
    "data_shapley": functools.partial(data_shapley, truncation=0),
    "beta_shapley": beta_shapley,
    "data_banzhaf": data_banzhaf,
}
PLAYERS = 5


def sets_of(count, m=4):
    """Features and labels for games that do not look at them."""
    x = np.arange(count + m, dtype=np.float32)[:, None]
    y = np.arange(count + m) % 2
    return x[:count], y[:count], x[count:], y[count:]


@functools.cache
def table_game(seed=0, count=PLAYERS):
    """A utility with an unrelated random worth for every subset."""
    worths = np.random.default_rng(seed).normal(size=2**count).astype(np.float32)
    powers = 2 ** np.arange(count)

    def utility(mask):
        return jnp.asarray(worths)[jnp.sum(mask.astype(int) * powers)]

    return utility, worths


def semivalue(worths, size_chances, count=PLAYERS):
    """By definition: Σ over subsets of the others, given the chance of each subset size."""
    values = np.zeros(count)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            weight = size_chances[size] / math.comb(count - 1, size)
            for subset in itertools.combinations(others, size):
                code = sum(2**j for j in subset)
                values[i] += weight * (worths[code + 2**i] - worths[code])
    return values


SIZES = np.arange(PLAYERS)
EXACT = {
    "data_shapley": np.full(PLAYERS, 1 / PLAYERS),
    "beta_shapley": betabinom.pmf(SIZES, PLAYERS - 1, 1, 16),
    "data_banzhaf": np.array([math.comb(PLAYERS - 1, k) for k in SIZES]) / 2 ** (PLAYERS - 1),
}
MANY = {
    "data_shapley": {"num_permutations": 2000},
    "beta_shapley": {"num_subsets": 2000},
    "data_banzhaf": {"num_subsets": 20000},
}


@pytest.mark.parametrize("name", SAMPLED)
def test_all_subsets_by_definition(name):
    utility, worths = table_game()
    result = SAMPLED[name](
        *sets_of(PLAYERS), key=KEY, utility=utility, batch_size=500, **MANY[name]
    )
    expected = semivalue(worths, EXACT[name])
    assert np.all(result.standard_errors < 0.05)
    assert np.ptp(expected) > 0.5
    assert np.all(np.abs(result.values - expected) < 4 * result.standard_errors)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (4.0, 1.0), (1.0, 4.0), (0.5, 2.0)])
def test_beta_weights_by_definition(alpha, beta):
    """The weights of Kwon and Zou, as Beta functions, normalised over sizes."""
    utility, worths = table_game(seed=1)
    result = beta_shapley(
        *sets_of(PLAYERS), key=KEY, alpha=alpha, beta=beta, utility=utility, num_subsets=2000
    )
    log_beta = lambda a, b: math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    chances = [
        math.comb(PLAYERS - 1, j - 1)
        * math.exp(log_beta(j + beta - 1, PLAYERS - j + alpha) - log_beta(alpha, beta))
        for j in range(1, PLAYERS + 1)
    ]
    assert sum(chances) == pytest.approx(1)
    expected = semivalue(worths, chances)
    assert np.all(np.abs(result.values - expected) < 4 * result.standard_errors)


@pytest.mark.parametrize("name", SAMPLED)
def test_standard_errors_are_what_new_keys_do(name):
    utility, _ = table_game()
    few = {"num_permutations": 40} if name == "data_shapley" else {"num_subsets": 60}
    method = functools.partial(SAMPLED[name], *sets_of(PLAYERS), utility=utility, **few)
    results = jax.jit(jax.vmap(lambda key: method(key=key)))(jax.random.split(KEY, 400))
    spread = results.values.std(axis=0, ddof=1)
    claimed = np.sqrt(np.mean(np.square(results.standard_errors), axis=0))
    np.testing.assert_allclose(claimed, spread, rtol=0.15)


def test_additive_games_in_closed_form():
    worths = np.array([3.0, -1.0, 0.0, 0.5], np.float32)
    additive = lambda mask: 2 + mask @ jnp.asarray(worths)
    sets = sets_of(4)
    np.testing.assert_allclose(loo_values(*sets, utility=additive).values, worths, atol=1e-6)
    for method in (SAMPLED["data_shapley"], beta_shapley):
        result = method(*sets, key=KEY, utility=additive)
        np.testing.assert_allclose(result.values, worths, atol=1e-5)
        np.testing.assert_allclose(result.standard_errors, 0, atol=1e-6)
    result = data_banzhaf(*sets, key=KEY, utility=additive)
    assert np.all(np.abs(result.values - worths) < 4 * result.standard_errors)


def test_shapley_of_neighbours_is_knn_shapley():
    rng = np.random.default_rng(0)
    sets = (
        rng.normal(size=(12, 2)).astype(np.float32),
        rng.integers(2, size=12),
        rng.normal(size=(9, 2)).astype(np.float32),
        rng.integers(2, size=9),
    )
    result = data_shapley(
        *sets,
        key=KEY,
        truncation=0,
        num_permutations=2000,
        batch_size=500,
        utility=knn_utility(*sets, num_neighbours=3),
    )
    exact = knn_shapley(*sets, num_neighbours=3).values
    assert np.all(np.abs(result.values - exact) < 4 * result.standard_errors)
    assert np.corrcoef(result.values, exact)[0, 1] > 0.99


def test_shapley_is_efficient():
    utility, worths = table_game()
    sets = sets_of(PLAYERS)
    result = data_shapley(*sets, key=KEY, utility=utility, truncation=0, num_permutations=7)
    assert float(result.values.sum()) == pytest.approx(worths[-1] - worths[0], abs=1e-5)
    assert int(result.num_evaluations) == 7 * PLAYERS + 2


def test_truncation_saves_evaluations_within_its_tolerance():
    count = 30
    saturating = lambda mask: 1 - 0.5 ** jnp.sum(mask)
    run = functools.partial(
        data_shapley, *sets_of(count), key=KEY, utility=saturating, num_permutations=50
    )
    full, truncated = run(truncation=0), run(truncation=0.01)
    # 1 − 2⁻⁷ is the first within 0.01 of the whole
    assert int(truncated.num_evaluations) == 50 * 7 + 2
    assert 0 <= float(full.values.sum() - truncated.values.sum()) < 0.01
    np.testing.assert_allclose(truncated.values, full.values, atol=0.01)


@pytest.mark.parametrize("name", SAMPLED)
def test_batches_change_nothing_and_keys_do(name):
    utility, _ = table_game()
    method = functools.partial(SAMPLED[name], *sets_of(PLAYERS), utility=utility)
    values = method(key=KEY, batch_size=3).values
    np.testing.assert_allclose(method(key=KEY, batch_size=1000).values, values, atol=1e-5)
    assert np.abs(method(key=jax.random.key(1)).values - values).max() > 1e-3


def test_marginal_contributions_of_any_subset():
    utility, worths = table_game()
    wrapped = jax.tree_util.Partial(utility)
    mask = np.array([1, 0, 0, 1, 0], np.float32)
    expected = [worths[9 | 2**i] - worths[9 & ~(2**i)] for i in range(PLAYERS)]
    found = marginal_contributions(wrapped, jnp.asarray(mask), batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def blobs(n=24, m=40, wrong=4, seed=0):
    """Two separable classes; the first `wrong` training labels are flipped."""
    rng = np.random.default_rng(seed)
    y = np.arange(n + m) % 2
    x = (rng.normal(size=(n + m, 2)) + 3 * y[:, None]).astype(np.float32)
    labels = y[:n].copy()
    labels[:wrong] = 1 - labels[:wrong]
    return x[:n], labels, x[n:], y[n:]


DEFAULT = {
    "loo_values": lambda *sets: loo_values(
        *sets, utility=logistic_utility(*sets, metric="log_likelihood", tolerance=1e-6)
    ),
    "data_shapley": functools.partial(data_shapley, key=KEY, num_permutations=60),
    "beta_shapley": functools.partial(beta_shapley, key=KEY, num_subsets=40),
    "data_banzhaf": functools.partial(data_banzhaf, key=KEY, num_subsets=600),
}


@pytest.mark.parametrize("name", DEFAULT)
def test_wrong_labels_are_worth_less(name):
    result = DEFAULT[name](*blobs())
    assert result.values.shape == (24,)
    assert result.values[:4].mean() < result.values[4:].mean()
    above = np.asarray(result.values)[4:, None] > np.asarray(result.values)[None, :4]
    assert above.mean() > 0.8


@pytest.mark.parametrize("name", DEFAULT)
def test_values_move_with_their_examples(name):
    x, y, *valid = blobs()
    order = np.random.default_rng(1).permutation(24)
    first, moved = DEFAULT[name](x, y, *valid), DEFAULT[name](x[order], y[order], *valid)
    allowed = 1e-5
    if isinstance(first, SampledValues):
        # the same random draws now meet other examples
        allowed = 5 * np.hypot(first.standard_errors[order], moved.standard_errors)
    assert np.all(np.abs(moved.values - first.values[order]) <= allowed)


def test_leaving_out_is_retraining_without(x64):
    x, y, valid_x, valid_y = blobs()
    sets = x.astype(float), y, valid_x.astype(float), valid_y
    utility = logistic_utility(*sets, metric="log_likelihood", tolerance=1e-9)
    masks = np.vstack([np.ones((1, 24)), 1 - np.eye(24)])
    worths = evaluate(utility, masks)
    values = loo_values(*sets, utility=utility, batch_size=7).values
    np.testing.assert_allclose(values, worths[0] - worths[1:], atol=1e-6)
    # a single example would be lost in the usual tolerance
    roughly = logistic_utility(*sets, metric="log_likelihood")
    np.testing.assert_allclose(loo_values(*sets, utility=roughly).values, values, atol=2e-4)
    np.testing.assert_array_equal(
        loo_values(*sets).values,
        loo_values(*sets, utility=logistic_utility(*sets, tolerance=1e-5)).values,
    )


def test_reliability_grows_with_sampling():
    utility, _ = table_game()
    run = functools.partial(data_banzhaf, *sets_of(PLAYERS), key=KEY, utility=utility)
    few, many = run(num_subsets=40), run(num_subsets=20000)
    assert float(few.reliability) < float(many.reliability) < 1
    assert float(many.reliability) > 0.95


METHODS = {
    "loo_values": loo_values,
    **{k: functools.partial(v, key=KEY) for k, v in SAMPLED.items()},
}


@pytest.mark.parametrize("name", METHODS)
def test_bad_input(name):
    method = METHODS[name]
    x, y, *valid = blobs()
    with pytest.raises(InputError, match="batch_size is 0"):
        method(x, y, *valid, batch_size=0)
    with pytest.raises(InputError, match=r"returns shape \(24,\)"):
        method(x, y, *valid, utility=lambda mask: mask)
    with pytest.raises(InputError, match="must be a finite number for every subset"):
        method(x, y, *valid, utility=lambda mask: jnp.log(jnp.sum(mask) - jnp.sum(mask) - 1))
    with pytest.raises(InputError, match="valid_labels 40"):
        method(x, y, valid[0][:3], valid[1], utility=lambda mask: mask.sum())
    with pytest.raises(InputError, match="train_features holds 1 NaN"):
        method(np.where(x == x[3, 1], np.nan, x).astype(np.float32), y, *valid)
    with pytest.raises(InputError, match="labels are traced"):
        jax.jit(method)(x, y, *valid)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (data_shapley, {"num_permutations": 1}, "num_permutations is 1"),
        (data_shapley, {"truncation": -0.1}, "truncation is -0.1"),
        (data_shapley, {"key": 0}, "key is int"),
        (beta_shapley, {"alpha": 0.0}, "alpha is 0.0"),
        (beta_shapley, {"beta": -1.0}, "beta is -1.0"),
        (beta_shapley, {"num_subsets": 1}, "num_subsets is 1"),
        (beta_shapley, {"key": jax.random.split(KEY)}, "key is key"),
        (data_banzhaf, {"num_subsets": 3}, "num_subsets is 3"),
        (data_banzhaf, {"num_subsets": 4}, "was in or out of only . of them"),
        (data_banzhaf, {"key": None}, "key is NoneType"),
    ],
)
def test_options_out_of_range(method, options, message):
    with pytest.raises(InputError, match=message):
        method(*sets_of(24), utility=lambda mask: mask.sum(), **{"key": KEY, **options})
