import numpy as np
import pytest
from scipy import stats

from jaxinf.errors import InputError
from jaxinf.evaluation import average_precision, detection_auc, detection_curve

BAD = np.array([True, False, True, False])


def test_auc_by_hand():
    assert detection_auc([4, 3, 2, 1], BAD) == 0.75
    assert detection_auc([9, 1, 8, 0], BAD) == 1
    assert detection_auc([0, 8, 1, 9], BAD) == 0
    assert detection_auc([5, 5, 5, 5], BAD) == 0.5


def test_auc_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    scores, bad = rng.integers(0, 20, 200).astype(float), rng.random(200) < 0.3
    u = stats.mannwhitneyu(scores[bad], scores[~bad]).statistic
    assert detection_auc(scores, bad) == pytest.approx(u / (bad.sum() * (~bad).sum()))


def test_infinite_scores_are_ordered():
    assert detection_auc([np.inf, 0.0, 1.0, -np.inf], BAD) == 1
    assert average_precision([np.inf, 0.0, 1.0, -np.inf], BAD) == 1


def test_average_precision_by_hand():
    # found at ranks 1 and 3: (1/1 + 2/3) / 2
    assert average_precision([4, 3, 2, 1], BAD) == pytest.approx((1 + 2 / 3) / 2)


def test_curve_by_hand_and_its_ties():
    inspected, found = detection_curve([4, 3, 2, 1], BAD)
    np.testing.assert_array_equal(inspected, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(detection_curve([7, 7, 7, 7], BAD)[1], found)


def test_area_under_the_curve_follows_from_the_auc():
    rng = np.random.default_rng(1)
    scores, bad = rng.normal(size=300), rng.random(300) < 0.2
    inspected, found = detection_curve(scores, bad)
    # the x axis counts bad and good alike: area = p/2 + (1 - p) AUC
    p = bad.mean()
    expected = p / 2 + (1 - p) * detection_auc(scores, bad)
    assert np.trapezoid(found, inspected) == pytest.approx(expected)


@pytest.mark.parametrize("function", [detection_auc, average_precision, detection_curve])
@pytest.mark.parametrize(
    ("scores", "is_bad", "message"),
    [
        (np.zeros((2, 2)), BAD, "one number per example"),
        ([], np.zeros(0, bool), "one number per example"),
        ([1.0, np.nan, 0.0, 0.0], BAD, "1 NaN"),
        ([1.0, 2.0], BAD, r"\(2,\) and \(4,\)"),
        (np.zeros(4), BAD.astype(int), "bool mask"),
        (np.zeros(4), np.zeros(4, bool), "all examples or none"),
        (np.zeros(4), np.ones(4, bool), "all examples or none"),
    ],
)
def test_bad_input(function, scores, is_bad, message):
    with pytest.raises(InputError, match=message):
        function(scores, is_bad)
