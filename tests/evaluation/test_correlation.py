import numpy as np
import pytest
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation import linear_datamodeling_score, mean_interval, pearson, spearman


@pytest.mark.parametrize(
    ("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)]
)
def test_rows_agree_with_scipy(ours, theirs):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 8, (6, 25)).astype(np.float32)
    b = a + 4 * rng.normal(size=a.shape)
    expected = [theirs(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ours(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_pearson_does_not_depend_on_scale(scale):
    a, b = np.random.default_rng(1).normal(size=(2, 3, 9))
    np.testing.assert_allclose(pearson(a * scale, b * scale), pearson(a, b), rtol=1e-10)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_constant_rows_have_no_correlation_and_do_not_touch_the_others(correlation):
    a = np.array([[0.1] * 7, np.arange(7.0)])
    got = correlation(a, np.stack([np.arange(7.0), -np.arange(7.0)]))
    assert np.isnan(got[0])
    assert got[1] == pytest.approx(-1)


def _half_subsets(rng, count, size):
    return np.stack([rng.permutation(size) < size // 2 for _ in range(count)])


def test_lds_of_the_true_linear_model_is_one():
    rng = np.random.default_rng(2)
    effects = rng.normal(size=(8, 60))
    subsets = _half_subsets(rng, 50, 60)
    outputs = subsets @ effects.T + 3
    np.testing.assert_allclose(linear_datamodeling_score(effects, subsets, outputs), 1)
    np.testing.assert_allclose(linear_datamodeling_score(-effects, subsets, outputs), -1)
    # the order of the subsets is all that counts
    curved = linear_datamodeling_score(7 * effects, subsets, np.exp(outputs))
    np.testing.assert_allclose(curved, 1)


def test_lds_of_noise_is_zero_within_its_interval():
    rng = np.random.default_rng(3)
    effects = rng.normal(size=(200, 60))
    subsets = _half_subsets(rng, 40, 60)
    got = linear_datamodeling_score(rng.normal(size=effects.shape), subsets, subsets @ effects.T)
    interval = mean_interval(got, confidence=0.99)
    assert interval.low < 0 < interval.high
    assert got.std() == pytest.approx(1 / np.sqrt(39), rel=0.25)


def test_lds_by_hand_with_scipy():
    rng = np.random.default_rng(4)
    scores, outputs = rng.normal(size=(3, 12)), rng.normal(size=(10, 3))
    subsets = rng.random((10, 12)) < 0.5
    expected = [
        stats.spearmanr([scores[k][mask].sum() for mask in subsets], outputs[:, k]).statistic
        for k in range(3)
    ]
    np.testing.assert_allclose(linear_datamodeling_score(scores, subsets, outputs), expected)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-30])
def test_lds_of_constant_scores_is_undefined_and_not_rounding_noise(constant):
    rng = np.random.default_rng(5)
    subsets = _half_subsets(rng, 20, 200)
    got = linear_datamodeling_score(np.full((2, 200), constant), subsets, rng.normal(size=(20, 2)))
    assert np.isnan(got).all()


SUBSETS = np.eye(4, 3, dtype=bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pearson(np.zeros(3), np.zeros(3)), "one row per query"),
        (lambda: spearman(np.zeros((2, 3)), np.zeros((3, 3))), r"\(2, 3\) and \(3, 3\)"),
        (lambda: pearson(np.zeros((2, 1)), np.zeros((2, 1))), "at least 2"),
        (lambda: pearson([[np.nan, 1.0]], [[0.0, 1.0]]), "1 NaN"),
        (lambda: pearson([[np.inf, 1.0]], [[0.0, 1.0]]), "infinities"),
        (
            lambda: linear_datamodeling_score(
                np.zeros((2, 3)), SUBSETS.astype(int), np.zeros((4, 2))
            ),
            "bool mask",
        ),
        (
            lambda: linear_datamodeling_score(np.zeros((2, 5)), SUBSETS, np.zeros((4, 2))),
            "do not fit",
        ),
        (
            lambda: linear_datamodeling_score(np.zeros((2, 3)), SUBSETS, np.zeros((2, 4))),
            "do not fit",
        ),
        (
            lambda: linear_datamodeling_score(np.zeros((2, 3)), SUBSETS[:2], np.zeros((2, 2))),
            "at least 3",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
