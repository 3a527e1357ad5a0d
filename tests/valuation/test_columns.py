import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.valuation.columns import one_hot, raw_features, standardise

RNG = np.random.default_rng(0)


def test_stored_bytes_become_zero_to_one():
    x = RNG.integers(0, 256, (5, 3, 2), np.uint8)
    found = raw_features(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x.reshape(5, 6) / 255, rtol=1e-6)


def test_a_stated_range_is_mapped_and_floats_are_left_alone():
    x = RNG.uniform(-2, 6, (5, 3)).astype(np.float32)
    np.testing.assert_array_equal(raw_features(x), x)
    np.testing.assert_allclose(raw_features(x, value_range=(-2, 6)), (x + 2) / 8, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((2, 2), np.int32), {}, "x is int32: give value_range"),
        (np.zeros((2, 2), np.float32), {"value_range": (1, 1)}, r"value_range is \(1, 1\)"),
        (np.full((2, 2), 9, np.float32), {"value_range": (0, 1)}, "from 9 to 9, beyond"),
        (np.full((2, 2), np.nan, np.float32), {}, "x holds 4 NaN"),
        (np.zeros((0, 2), np.float32), {}, "x is empty"),
    ],
)
def test_raw_features_refuse(x, options, message):
    with pytest.raises(InputError, match=message):
        raw_features(x, **options)


@pytest.mark.parametrize("by", ["train", "valid", "both"])
def test_standardised_by_the_side_named(by):
    train, valid = RNG.normal(3, 5, (40, 4)), RNG.normal(-1, 2, (30, 4))
    found = standardise(train, valid, by=by)
    scaled = {
        "train": found.train,
        "valid": found.valid,
        "both": np.concatenate([found.train, found.valid]),
    }[by]
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(found.train * found.std + found.mean, train, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.valid * found.std + found.mean, valid, rtol=1e-5, atol=1e-5)


def test_units_of_measurement_do_not_count():
    train, valid = RNG.normal(size=(20, 3)), RNG.normal(size=(10, 3))
    units = np.array([1e-6, 1.0, 1e9])
    plain, scaled = standardise(train, valid), standardise(train * units + 7, valid * units + 7)
    np.testing.assert_allclose(plain.train, scaled.train, atol=1e-3)
    np.testing.assert_allclose(plain.valid, scaled.valid, atol=1e-3)


def test_constant_columns_are_zero_on_both_sides():
    train, valid = RNG.normal(size=(20, 3)), RNG.normal(size=(10, 3))
    train[:, 1] = 0.1  # whose mean over 20 rows is not 0.1 exactly
    found = standardise(train, valid)
    assert found.constant.tolist() == [False, True, False]
    assert not found.train[:, 1].any()
    assert not found.valid[:, 1].any()
    assert found.std[1] == 1


@pytest.mark.parametrize(
    ("train", "valid", "options", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), {}, "train has 3 columns and valid 4"),
        (np.ones((2, 3)), np.array([["a"]]), {}, "categories go through one_hot first"),
        (np.ones(3), np.ones((2, 1)), {}, r"train is float64\[3\]"),
        (np.full((2, 3), np.inf), np.ones((2, 3)), {}, "train holds 6 NaN or infinite"),
        (np.ones((2, 3)), np.ones((2, 3)), {"by": "me"}, "by is 'me'"),
    ],
)
def test_standardise_refuses(train, valid, options, message):
    with pytest.raises(InputError, match=message):
        standardise(train, valid, **options)


def test_one_hot_marks_each_category_once_on_both_sides():
    train, valid = np.array([3, 1, 3]), np.array([2, 1])
    found = one_hot(train, valid)
    np.testing.assert_array_equal(found.categories, [1, 2, 3])
    np.testing.assert_array_equal(found.categories[found.train.argmax(axis=1)], train)
    np.testing.assert_array_equal(found.categories[found.valid.argmax(axis=1)], valid)
    np.testing.assert_array_equal(found.train.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        (["a"], [1], "text on one side and numbers on the other"),
        ([["a"]], ["a"], r"train has shape \(1, 1\)"),
        (["a"], [], r"valid has shape \(0,\)"),
    ],
)
def test_one_hot_refuses(train, valid, message):
    with pytest.raises(InputError, match=message):
        one_hot(train, valid)
