import numpy as np
import pytest
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation.loo import loo_correlation


def test_agrees_with_scipy_on_the_rows_left_out():
    rng = np.random.default_rng(0)
    scores, rows = rng.normal(size=(3, 30)), rng.permutation(30)[:12]
    influences = np.round(scores[:, rows] + rng.normal(size=(3, 12)), 1)
    found = loo_correlation(scores, influences, rows=rows)
    for k in range(3):
        pair = scores[k, rows], influences[k]
        assert found.pearson[k] == pytest.approx(stats.pearsonr(*pair).statistic)
        assert found.spearman[k] == pytest.approx(stats.spearmanr(*pair).statistic)


def test_the_truth_agrees_with_itself_and_noise_does_not():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(50, 100))
    np.testing.assert_array_equal(loo_correlation(3 * truth, truth).pearson, 1)
    noise = loo_correlation(rng.normal(size=truth.shape), truth)
    assert abs(noise.spearman.mean()) < 0.05


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 9], "reach from 0 to 9"), ([0.0, 1.0], "row numbers"), ([0, 1, 2], "have shapes")],
)
def test_bad_input(rows, message):
    with pytest.raises(InputError, match=message):
        loo_correlation(np.eye(2, 5), np.eye(2), rows=rows)
