import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.evaluation.brittleness import brittleness

RNG = np.random.default_rng(0)
SUPPORT = RNG.normal(size=(6, 30)) + 0.1


def predict(subsets):
    """A query keeps class 1 while its support in the subset is positive."""
    return (subsets @ SUPPORT.T > 0).astype(int)


BEFORE = predict(np.ones((1, 30), bool))[0]


def test_removing_the_true_support_flips_and_removing_at_random_does_not():
    kept = BEFORE == 1
    true = brittleness(SUPPORT, predict, BEFORE, counts=[1, 5, 15])
    shares = [interval.estimate for interval in true.shares]
    assert true.flipped[-1][kept].all()
    assert shares == sorted(shares)
    assert true.shares[0].low <= shares[0] <= true.shares[0].high
    worst = brittleness(-SUPPORT, predict, BEFORE, counts=[5])
    assert not worst.flipped[0][kept].any()


def test_each_query_is_judged_by_its_own_removal():
    seen = []

    def record(subsets):
        seen.append(subsets)
        return predict(subsets)

    found = brittleness(SUPPORT, record, BEFORE, counts=[2, 4])
    (subsets,) = seen
    assert subsets.shape == (12, 30)
    assert (subsets.sum(axis=1) == np.repeat([28, 26], 6)).all()
    for k in range(6):
        top = np.argsort(-SUPPORT[k])[:4]
        assert not subsets[6 + k][top].any()
        flips = (SUPPORT[k].sum() - SUPPORT[k][top].sum() > 0) != BEFORE[k]
        assert found.flipped[1, k] == flips


@pytest.mark.parametrize(
    ("predictions", "counts", "message"),
    [
        (BEFORE[:3], [1], "predictions are"),
        (BEFORE.astype(float), [1], "predictions are"),
        (BEFORE, [], "counts is empty"),
        (BEFORE, [30], "no example to train on"),
        (BEFORE, [0], "k is 0"),
    ],
)
def test_bad_input(predictions, counts, message):
    with pytest.raises(InputError, match=message):
        brittleness(SUPPORT, predict, predictions, counts=counts)


def test_retrain_of_another_shape_is_refused():
    with pytest.raises(InputError, match="retrain returned"):
        brittleness(SUPPORT, lambda subsets: np.zeros(len(subsets)), BEFORE, counts=[1])
