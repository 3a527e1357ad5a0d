import numpy as np
import pytest
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation import (
    bootstrap_interval,
    clopper_pearson,
    detection_auc,
    mean_interval,
    paired_bootstrap,
)


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_bootstrap_of_a_mean_agrees_with_students_t(method):
    values = np.random.default_rng(0).normal(3, 2, 400)
    got = bootstrap_interval(values, num_resamples=4000, method=method, seed=0)
    expected = mean_interval(values)
    assert got.estimate == pytest.approx(values.mean())
    width = expected.high - expected.low
    assert abs(got.low - expected.low) < 0.1 * width
    assert abs(got.high - expected.high) < 0.1 * width


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        interval = bootstrap_interval(
            rng.exponential(size=60), confidence=0.8, num_resamples=400, seed=seed
        )
        covered += interval.low <= 1 <= interval.high
    allowed = clopper_pearson(covered, 200, confidence=0.999)
    assert allowed.low < 0.8 < allowed.high


def test_bootstrap_repeats_with_its_seed_and_not_with_another():
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


@pytest.mark.parametrize("statistic", [np.mean, np.median, lambda v: float(v.max())])
def test_constant_sample_has_an_interval_of_width_zero(statistic):
    interval = bootstrap_interval(np.full(10, 0.1), statistic, seed=0)
    assert (interval.low, interval.high) == (interval.estimate, interval.estimate)
    assert interval.estimate == pytest.approx(0.1)


def test_statistic_without_spread_falls_back_to_the_percentiles():
    values = np.array([0.0] * 200 + [1.0])
    interval = bootstrap_interval(values, np.median, num_resamples=200, seed=0)
    assert (interval.low, interval.estimate, interval.high) == (0, 0, 0)


def test_tuples_are_resampled_row_by_row():
    rng = np.random.default_rng(3)
    bad = rng.random(80) < 0.4
    scores = rng.normal(size=80) + bad
    interval = bootstrap_interval((scores, bad), detection_auc, num_resamples=100, seed=0)
    assert interval.estimate == detection_auc(scores, bad)
    assert 0.4 < interval.low < interval.estimate < interval.high < 1


def test_pairing_removes_what_both_methods_share():
    rng = np.random.default_rng(4)
    difficulty = rng.normal(0, 10, 200)
    a, b = difficulty + rng.normal(0.3, 0.5, 200), difficulty
    paired = paired_bootstrap(a, b, seed=0)
    assert paired.estimate == pytest.approx((a - b).mean())
    expected = mean_interval(a - b)
    np.testing.assert_allclose([paired.low, paired.high], [expected.low, expected.high], atol=0.02)
    assert paired_bootstrap(b, b, seed=0).low == 0 == paired_bootstrap(b, b, seed=0).high
    flipped = paired_bootstrap(b, a, lambda v: float(np.mean(v)), num_resamples=300, seed=0)
    assert flipped.high < 0


def test_mean_interval_agrees_with_scipy():
    values = np.random.default_rng(5).normal(size=5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    got = mean_interval(values, confidence=0.9)
    np.testing.assert_allclose([got.low, got.high], [expected.low, expected.high])
    same = mean_interval([2, 2, 2])
    assert (same.low, same.estimate, same.high) == (2, 2, 2)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (np.int64(7), 100)])
def test_clopper_pearson_is_where_the_binomial_tails_hold_half_of_what_is_left(successes, trials):
    got = clopper_pearson(successes, trials)
    assert got.estimate == successes / trials
    if successes > 0:
        assert stats.binom.sf(successes - 1, trials, got.low) == pytest.approx(0.025)
    else:
        assert got.low == 0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, got.high) == pytest.approx(0.025)
    else:
        assert got.high == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([1.0], seed=0), "at least 2"),
        (lambda: bootstrap_interval((), seed=0), "no array"),
        (lambda: bootstrap_interval([1.0, np.nan], seed=0), "NaN"),
        (lambda: bootstrap_interval([1.0, np.inf], seed=0), "infinities"),
        (lambda: bootstrap_interval(np.zeros((2, 2)), seed=0), "one number per example"),
        (lambda: bootstrap_interval([1.0, 2.0], confidence=95, seed=0), "confidence is 95"),
        (lambda: bootstrap_interval([1.0, 2.0], num_resamples=10, seed=0), "num_resamples is 10"),
        (lambda: bootstrap_interval([1.0, 2.0], method="basic", seed=0), "method is 'basic'"),
        (lambda: paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0], seed=0), r"\(2,\) and \(3,\)"),
        (lambda: mean_interval([1.0]), "at least 2"),
        (lambda: mean_interval([1.0, 2.0], confidence=0), "confidence is 0"),
        (lambda: clopper_pearson(3, 2), "3 successes in 2 trials"),
        (lambda: clopper_pearson(-1, 2), "-1 successes"),
        (lambda: clopper_pearson(0, 0), "0 trials"),
        (lambda: clopper_pearson(0.5, 2), "whole numbers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
