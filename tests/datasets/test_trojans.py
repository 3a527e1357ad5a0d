import numpy as np
import pytest

from jaxinf.datasets import trojan_square, trojan_watermark
from jaxinf.errors import InputError


def clean(dtype=np.uint8, shape=(8, 12, 3), count=100):
    x = np.random.default_rng(0).integers(20, 200, (count, *shape)).astype(dtype)
    return {"x": x, "y": np.arange(count, dtype=np.int32) % 4}


def check_truth(dirty, examples, target, rate):
    poisoned = dirty.is_poisoned
    assert poisoned.sum() == round(rate * (examples["y"] != target).sum())
    assert (examples["y"][poisoned] != target).all()
    assert (dirty.examples["y"][poisoned] == target).all()
    for key in ("x", "y"):
        np.testing.assert_array_equal(dirty.examples[key][~poisoned], examples[key][~poisoned])
    np.testing.assert_array_equal(dirty.original_labels, examples["y"])
    assert dirty.examples["x"].dtype == examples["x"].dtype


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (8, 12, 3)), (np.float32, (8, 12))])
def test_square_is_one_pattern_in_the_corner_and_nowhere_else(dtype, shape):
    examples = clean(dtype, shape)
    before = examples["x"].copy()
    dirty = trojan_square(examples, 0.4, 1, size=4, seed=0)
    np.testing.assert_array_equal(examples["x"], before)
    check_truth(dirty, examples, 1, 0.4)
    poisoned = dirty.examples["x"][dirty.is_poisoned]
    corner = poisoned[:, -4:, -4:]
    assert (corner == corner[:1]).all()
    ends = (0, 255) if dtype == np.uint8 else (before.min(), before.max())
    assert set(np.unique(corner)) == set(ends)
    poisoned[:, -4:, -4:] = before[dirty.is_poisoned][:, -4:, -4:]
    np.testing.assert_array_equal(poisoned, before[dirty.is_poisoned])


def test_square_is_a_quarter_of_the_shorter_side():
    dirty = trojan_square(clean(shape=(16, 20)), 1.0, 0, seed=0)
    rows = dirty.is_poisoned
    changed = (dirty.examples["x"][rows] != clean(shape=(16, 20))["x"][rows]).any(axis=0)
    assert changed[-4:, -4:].all()
    assert changed.sum() == 16


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (8, 12, 3)), (np.float32, (28, 28))])
def test_watermark_moves_a_third_of_the_pixels_by_its_opacity(dtype, shape):
    examples = clean(dtype, shape)
    dirty = trojan_watermark(
        examples, 0.5, 2, alpha=0.25, value_range=(0, 240), pattern_seed=3, seed=0
    )
    check_truth(dirty, examples, 2, 0.5)
    was = examples["x"][dirty.is_poisoned].astype(float)
    now = dirty.examples["x"][dirty.is_poisoned].astype(float)
    tolerance = 0.5 if dtype == np.uint8 else 1e-3
    light = np.isclose(now, 0.75 * was + 60, atol=tolerance).all(axis=0)
    dark = np.isclose(now, 0.75 * was, atol=tolerance).all(axis=0)
    untouched = (now == was).all(axis=0)
    assert (light | dark | untouched).all()
    for drawn in (light, dark):
        assert 0.1 < drawn.mean() < 0.25


def test_the_trigger_depends_on_its_own_seed_alone():
    def mark(seed, pattern_seed):
        given = {"x": np.zeros((20, 8, 8), np.uint8), "y": np.arange(20) % 2}
        dirty = trojan_watermark(given, 0.5, 0, pattern_seed=pattern_seed, seed=seed)
        return dirty.is_poisoned, dirty.examples["x"][dirty.is_poisoned][0]

    (rows, first), (others, same), (_, different) = mark(0, 0), mark(1, 0), mark(0, 1)
    assert (rows != others).any()
    np.testing.assert_array_equal(first, same)
    assert (first != different).any()


FLAT = {"x": np.zeros((2, 3), np.float32), "y": np.array([0, 1])}


@pytest.mark.parametrize("trigger", [trojan_square, trojan_watermark])
@pytest.mark.parametrize(
    ("examples", "changes", "message"),
    [
        (clean(), {"rate": 1.2}, "rate is 1.2"),
        (clean(), {"target_class": 4}, "target_class is 4"),
        (clean(), {"value_range": (1, 1)}, r"value_range is \(1, 1\)"),
        (FLAT, {}, r"shape \(2, 3\): images"),
    ],
)
def test_bad_input(trigger, examples, changes, message):
    with pytest.raises(InputError, match=message):
        trigger(examples, **({"rate": 0.1, "target_class": 0, "seed": 0} | changes))


def test_bad_size_and_opacity():
    with pytest.raises(InputError, match="size is 9: the square must fit into 8x12"):
        trojan_square(clean(), 0.1, 0, size=9, seed=0)
    with pytest.raises(InputError, match="alpha is 2"):
        trojan_watermark(clean(), 0.1, 0, alpha=2, seed=0)
