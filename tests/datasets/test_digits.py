import numpy as np
import pytest
from sklearn import datasets

from jaxinf.datasets import load_digits, split_digits
from jaxinf.errors import InputError


def test_both_sides_are_scikit_learns_digits_scaled_to_one():
    train, test = load_digits(test_fraction=0.25, seed=3)
    rows = split_digits(test_fraction=0.25, seed=3)
    original = datasets.load_digits()
    for side, index in zip((train, test), rows, strict=True):
        assert side["x"].dtype == np.float32
        assert side["y"].dtype == np.int32
        np.testing.assert_array_equal(side["x"][..., 0] * 16, original.images[index])
        np.testing.assert_array_equal(side["y"], original.target[index])
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(1797))
    assert train["x"].min() == 0
    assert train["x"].max() == 1


def test_split_is_stratified_and_follows_the_seed():
    train, test = load_digits()
    whole = np.bincount(np.concatenate([train["y"], test["y"]]))
    assert np.abs(np.bincount(test["y"]) - 0.2 * whole).max() < 1
    np.testing.assert_array_equal(split_digits(seed=1)[1], split_digits(seed=1)[1])
    assert (split_digits(seed=1)[1] != split_digits(seed=2)[1]).any()


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 0.001, 0.999, 1.0, float("nan")])
def test_a_side_without_every_class_is_refused(fraction):
    with pytest.raises(InputError, match="test_fraction is"):
        load_digits(test_fraction=fraction)
