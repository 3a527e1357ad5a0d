import numpy as np
import pytest
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation.correlation import linear_datamodeling_score
from jaxinf.evaluation.lds import _spearman_of_counts, lds


def _half_subsets(rng, count, size):
    return np.stack([rng.permutation(size) < size // 2 for _ in range(count)])


def test_the_true_linear_model_scores_one():
    rng = np.random.default_rng(0)
    effects, subsets = rng.normal(size=(9, 40)), _half_subsets(rng, 50, 40)
    found = lds(effects, subsets, subsets @ effects.T, seed=1)
    np.testing.assert_allclose(found.per_query, 1)
    assert (found.mean.estimate, found.mean.low, found.mean.high) == (1, 1, 1)


def test_noise_scores_zero_within_its_interval():
    rng = np.random.default_rng(2)
    effects, subsets = rng.normal(size=(100, 60)), _half_subsets(rng, 50, 60)
    found = lds(rng.normal(size=effects.shape), subsets, subsets @ effects.T, seed=3)
    assert found.mean.low < 0 < found.mean.high
    assert found.mean.high - found.mean.low < 0.2


def test_interval_covers_the_score_of_many_models():
    rng = np.random.default_rng(4)
    effects = rng.normal(size=(40, 50))
    scores = effects + 1.5 * rng.normal(size=effects.shape)
    many = _half_subsets(rng, 2000, 50)
    truth = linear_datamodeling_score(scores, many, many @ effects.T).mean()
    covered = []
    for _ in range(30):
        subsets, queries = _half_subsets(rng, 40, 50), rng.integers(0, 40, 40)
        part = scores[queries], subsets, subsets @ effects[queries].T
        interval = lds(*part, num_resamples=200, seed=5).mean
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) > 0.8


def test_resampled_ranks_are_scipys_with_ties():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 6, (4, 15)).astype(float), rng.normal(size=(4, 15))
    drawn = rng.integers(0, 15, (8, 15))
    counts = np.stack([np.bincount(rows, minlength=15) for rows in drawn], axis=1).astype(float)
    expected = [
        [stats.spearmanr(x[rows], y[rows]).statistic for rows in drawn]
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(_spearman_of_counts(a, b, counts), expected, atol=1e-12)
    ones = np.ones((15, 1))
    np.testing.assert_allclose(
        _spearman_of_counts(a, b, ones)[:, 0],
        [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)],
        atol=1e-12,
    )


def test_undefined_queries_are_counted_and_left_out():
    rng = np.random.default_rng(7)
    scores, subsets = rng.normal(size=(3, 20)), _half_subsets(rng, 30, 20)
    outputs = subsets @ scores.T
    scores[1] = 0
    found = lds(scores, subsets, outputs)
    assert found.num_undefined == 1
    assert np.isnan(found.per_query[1])
    assert found.mean.estimate == 1


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (np.zeros((2, 8)), {}, "constant"),
        (np.eye(2, 8), {"num_resamples": 10}, "num_resamples is 10"),
        (np.eye(2, 8), {"confidence": 95}, "confidence is 95"),
        (np.eye(2, 7), {}, "do not fit"),
    ],
)
def test_bad_input(scores, options, message):
    rng = np.random.default_rng(8)
    with pytest.raises(InputError, match=message):
        lds(scores, _half_subsets(rng, 10, 8), rng.normal(size=(10, 2)), **options)
