import numpy as np
import pytest

from jaxinf.datasets import class_imbalance
from jaxinf.errors import InputError

EXAMPLES = {
    "x": np.arange(300, dtype=np.float32)[:, None],
    "y": np.random.default_rng(0).permutation(np.repeat(np.arange(3), 100)),
}


def test_fractions_are_kept_exactly_and_rows_stay_in_order():
    thin = class_imbalance(EXAMPLES, class_fractions=[1.0, 0.25, 0.0], seed=1)
    np.testing.assert_array_equal(np.bincount(thin.examples["y"], minlength=3), [100, 25, 0])
    np.testing.assert_array_equal(thin.examples["x"][:, 0], thin.kept)
    np.testing.assert_array_equal(thin.examples["y"], EXAMPLES["y"][thin.kept])
    assert (np.diff(thin.kept) > 0).all()
    other = class_imbalance(EXAMPLES, class_fractions=[1.0, 0.25, 0.0], seed=2)
    assert (other.kept != thin.kept).any()


@pytest.mark.parametrize(
    ("factor", "counts"), [(1, [100, 100, 100]), (100, [100, 10, 1]), (1e6, [100, 1, 1])]
)
def test_exponential_profile(factor, counts):
    thin = class_imbalance(EXAMPLES, imbalance_factor=factor, seed=0)
    np.testing.assert_array_equal(np.bincount(thin.examples["y"]), counts)


def test_one_class_alone_keeps_everything():
    alone = {"x": np.zeros((4, 1), np.float32), "y": np.zeros(4, int)}
    assert len(class_imbalance(alone, imbalance_factor=10, seed=0).kept) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"class_fractions": [1, 1, 1], "imbalance_factor": 2}, "give either"),
        ({"class_fractions": [1, 1, 1.5]}, "between 0 and 1"),
        ({"class_fractions": [1, 1, np.nan]}, "between 0 and 1"),
        ({"class_fractions": 0.5}, "one fraction"),
        ({"class_fractions": [1, 1]}, "out of range for 2 classes"),
        ({"class_fractions": [0, 0, 0]}, "no example at all"),
        ({"imbalance_factor": 0.5}, "imbalance_factor is 0.5"),
        ({"imbalance_factor": 0}, "imbalance_factor is 0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        class_imbalance(EXAMPLES, **options, seed=0)
