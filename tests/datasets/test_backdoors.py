import numpy as np
import pytest

from jaxinf.datasets import blend_trigger, patch_trigger
from jaxinf.errors import InputError


def clean(dtype=np.uint8, shape=(6, 7, 3)):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 200, (100, *shape)).astype(dtype)
    return {"x": x, "y": np.arange(100, dtype=np.int32) % 4}


def check_truth(dirty, examples, target, rate):
    poisoned = dirty.is_poisoned
    assert poisoned.sum() == round(rate * (examples["y"] != target).sum())
    assert (examples["y"][poisoned] != target).all()
    assert (dirty.examples["y"][poisoned] == target).all()
    np.testing.assert_array_equal(dirty.examples["y"][~poisoned], examples["y"][~poisoned])
    np.testing.assert_array_equal(dirty.examples["x"][~poisoned], examples["x"][~poisoned])
    np.testing.assert_array_equal(dirty.original_labels, examples["y"])
    assert dirty.examples["x"].dtype == examples["x"].dtype


@pytest.mark.parametrize(
    ("corner", "down", "across"),
    [
        ("top_left", slice(0, 2), slice(0, 2)),
        ("top_right", slice(0, 2), slice(5, 7)),
        ("bottom_left", slice(4, 6), slice(0, 2)),
        ("bottom_right", slice(4, 6), slice(5, 7)),
    ],
)
def test_patch_lies_in_its_corner_and_nowhere_else(corner, down, across):
    examples = clean()
    before = examples["x"].copy()
    dirty = patch_trigger(examples, 0.2, 1, size=2, corner=corner, seed=0)
    np.testing.assert_array_equal(examples["x"], before)
    check_truth(dirty, examples, 1, 0.2)
    expected = before.copy()
    expected[dirty.is_poisoned, down, across] = 255
    np.testing.assert_array_equal(dirty.examples["x"], expected)


def test_patch_value_per_channel_and_for_floats():
    coloured = patch_trigger(clean(), 1.0, 0, value=[1, 2, 3], seed=0)
    np.testing.assert_array_equal(
        coloured.examples["x"][1, -3:, -3:], np.full((3, 3, 3), [1, 2, 3])
    )
    examples = clean(np.float32, (5, 5))
    bright = patch_trigger(examples, 1.0, 0, size=1, seed=0)
    assert bright.examples["x"][1, -1, -1] == examples["x"].max()


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (6, 7, 3)), (np.float32, (6, 7))])
def test_blend_by_hand(dtype, shape):
    examples = clean(dtype, shape)
    pattern = np.random.default_rng(1).integers(0, 256, shape)
    dirty = blend_trigger(examples, 0.5, 2, pattern, 0.3, seed=0)
    check_truth(dirty, examples, 2, 0.5)
    expected = 0.7 * examples["x"][dirty.is_poisoned] + 0.3 * pattern
    got = dirty.examples["x"][dirty.is_poisoned]
    np.testing.assert_allclose(got, expected, atol=0.5 if dtype == np.uint8 else 1e-4)


def test_blend_at_its_ends():
    examples = clean()
    pattern = np.full((6, 7, 3), 9)
    nothing = blend_trigger(examples, 1.0, 0, pattern, 0.0, seed=0)
    np.testing.assert_array_equal(nothing.examples["x"], examples["x"])
    everything = blend_trigger(examples, 1.0, 0, pattern, 1.0, seed=0)
    assert (everything.examples["x"][everything.is_poisoned] == 9).all()


def test_same_seed_same_rows():
    rows = [patch_trigger(clean(), 0.3, 0, seed=seed).is_poisoned for seed in (5, 5, 6)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()


FLAT = {"x": np.zeros((2, 3), np.float32), "y": np.array([0, 1])}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patch_trigger(clean(), 1.2, 0, seed=0), "rate is 1.2"),
        (lambda: patch_trigger(clean(), 0.1, 4, seed=0), "target_class is 4"),
        (lambda: patch_trigger(clean(), 0.1, -1, seed=0), "target_class is -1"),
        (lambda: patch_trigger(FLAT, 0.1, 0, seed=0), r"shape \(2, 3\): images"),
        (lambda: patch_trigger(clean(), 0.1, 0, size=7, seed=0), "fit into 6x7 pixels"),
        (lambda: patch_trigger(clean(), 0.1, 0, size=0, seed=0), "size is 0"),
        (lambda: patch_trigger(clean(), 0.1, 0, corner="middle", seed=0), "corner is 'middle'"),
        (lambda: patch_trigger(clean(), 0.1, 0, value=300, seed=0), "300 is no uint8 pixel"),
        (lambda: patch_trigger(clean(), 0.1, 0, value=[1, 2], seed=0), r"value has shape \(2,\)"),
        (lambda: blend_trigger(clean(), -1, 0, np.zeros((6, 7, 3)), 0.1, seed=0), "rate is -1"),
        (lambda: blend_trigger(clean(), 0.1, 0, np.zeros((6, 7, 3)), 2, seed=0), "alpha is 2"),
        (lambda: blend_trigger(clean(), 0.1, 0, np.zeros((6, 7)), 0.1, seed=0), "pattern has"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
