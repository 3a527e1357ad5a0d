import jax
import numpy as np
import pytest

from jaxinf.datasets import (
    asymmetric_label_noise,
    class_dependent_label_noise,
    instance_dependent_label_noise,
    symmetric_label_noise,
)
from jaxinf.errors import InputError


def clean(count=1000, num_classes=5):
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(count, 3)).astype(np.float32),
        "y": rng.integers(0, num_classes, count).astype(np.int32),
    }


def check_truth(noisy, examples):
    np.testing.assert_array_equal(noisy.original_labels, examples["y"])
    np.testing.assert_array_equal(noisy.is_flipped, noisy.examples["y"] != examples["y"])
    np.testing.assert_array_equal(noisy.examples["x"], examples["x"])
    assert noisy.examples["y"].dtype == np.int32
    assert noisy.is_flipped.dtype == bool


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_symmetric_noise_flips_exactly_the_rate_to_all_other_classes(rate):
    examples = clean()
    before = examples["y"].copy()
    noisy = symmetric_label_noise(examples, rate, 5, seed=1)
    np.testing.assert_array_equal(examples["y"], before)
    check_truth(noisy, examples)
    assert noisy.is_flipped.sum() == round(rate * 1000)
    if rate == 1:
        steps = (noisy.examples["y"] - before) % 5
        assert np.bincount(steps)[0] == 0
        assert np.abs(np.bincount(steps)[1:] - 250).max() < 60  # 4 standard deviations


def test_asymmetric_noise_follows_the_mapping_and_spares_fixed_classes():
    examples = clean()
    mapping = np.array([0, 2, 1, 4, 4])
    noisy = asymmetric_label_noise(examples, 0.4, mapping, seed=2)
    check_truth(noisy, examples)
    flipped = noisy.is_flipped
    np.testing.assert_array_equal(noisy.examples["y"][flipped], mapping[examples["y"][flipped]])
    movable = np.isin(examples["y"], [1, 2, 3])
    assert flipped.sum() == round(0.4 * movable.sum())
    assert not flipped[~movable].any()


def test_asymmetric_noise_goes_to_the_next_class_by_default():
    examples = clean()
    noisy = asymmetric_label_noise(examples, 1.0, 5, seed=3)
    np.testing.assert_array_equal(noisy.examples["y"], (examples["y"] + 1) % 5)


def test_class_dependent_noise_has_the_transition_matrix_it_was_given():
    examples = clean(50_000, 3)
    transition = np.array([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]])
    noisy = class_dependent_label_noise(examples, transition, seed=4)
    check_truth(noisy, examples)
    counts = np.zeros((3, 3))
    np.add.at(counts, (examples["y"], noisy.examples["y"]), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), transition, atol=0.02)
    assert (counts[transition == 0] == 0).all()


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda e, seed: symmetric_label_noise(e, 0.3, 5, seed),
        lambda e, seed: asymmetric_label_noise(e, 0.3, 5, seed),
        lambda e, seed: class_dependent_label_noise(e, np.full((5, 5), 0.2), seed),
    ],
)
def test_same_seed_same_rows_and_results_are_pytrees(corrupt):
    examples = clean()
    once, again, other = corrupt(examples, 7), corrupt(examples, 7), corrupt(examples, 8)
    np.testing.assert_array_equal(once.examples["y"], again.examples["y"])
    assert (once.examples["y"] != other.examples["y"]).any()
    assert len(jax.tree.leaves(once)) == 4
    on_device = jax.tree.map(jax.numpy.asarray, examples)
    np.testing.assert_array_equal(corrupt(on_device, 7).is_flipped, once.is_flipped)


GOOD = {"x": np.zeros((3, 2), np.float32), "y": np.array([0, 1, 2])}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetric_label_noise(GOOD, -0.1, 3, 0), "rate is -0.1"),
        (lambda: symmetric_label_noise(GOOD, 1.1, 3, 0), "rate is 1.1"),
        (lambda: symmetric_label_noise(GOOD, float("nan"), 3, 0), "rate is nan"),
        (lambda: symmetric_label_noise(GOOD, 0.5, 1, 0), "num_classes is 1"),
        (lambda: symmetric_label_noise(GOOD, 0.5, 2, 0), r"\['y'\]\[2\] is 2, out of range"),
        (lambda: symmetric_label_noise({"x": GOOD["x"]}, 0.5, 3, 0), "dict with 'x' and 'y'"),
        (lambda: symmetric_label_noise((1, 2), 0.5, 3, 0), "dict with 'x' and 'y'"),
        (lambda: symmetric_label_noise({**GOOD, "y": np.arange(2)}, 0.5, 3, 0), "unequal"),
        (lambda: symmetric_label_noise({**GOOD, "y": np.eye(3, dtype=int)}, 0.5, 3, 0), "shape"),
        (lambda: symmetric_label_noise({**GOOD, "y": -np.arange(3)}, 0.5, 3, 0), "out of range"),
        (
            lambda: symmetric_label_noise({**GOOD, "y": np.zeros(3, np.float32)}, 0.5, 3, 0),
            "must be integers",
        ),
        (lambda: asymmetric_label_noise(GOOD, 2, 3, 0), "rate is 2"),
        (lambda: asymmetric_label_noise(GOOD, 0.5, 2, 0), "out of range for 2 classes"),
        (lambda: asymmetric_label_noise(GOOD, 0.5, 0, 0), "leads out of its 0 classes"),
        (lambda: asymmetric_label_noise(GOOD, 0.5, [0, 1, 3], 0), "leads out of its 3 classes"),
        (lambda: asymmetric_label_noise(GOOD, 0.5, [0.0, 1.0], 0), "one integer class"),
        (lambda: asymmetric_label_noise(GOOD, 0.5, [0, 1, 2], 0), "every label to itself"),
        (lambda: class_dependent_label_noise(GOOD, np.eye(2, 3), 0), r"shape \(2, 3\)"),
        (lambda: class_dependent_label_noise(GOOD, np.full((3, 3), 0.4), 0), "sum to 1"),
        (lambda: class_dependent_label_noise(GOOD, 2 * np.eye(3) - np.eye(3)[::-1], 0), "sum to"),
        (lambda: class_dependent_label_noise(GOOD, np.eye(2), 0), "out of range for 2 classes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_instance_dependent_noise_goes_where_the_model_is_confused(rate):
    examples = clean(4000)
    y = examples["y"]
    # the model takes class c for c + 1 in the second place, surely in the first half of the rows
    logits = np.zeros((4000, 5))
    logits[np.arange(4000), y] = np.where(np.arange(4000) < 2000, 6.0, 2.0)
    logits[np.arange(4000), (y + 1) % 5] = 1.0
    noisy = instance_dependent_label_noise(examples, rate, logits, seed=4)
    check_truth(noisy, examples)
    flipped = noisy.is_flipped
    assert flipped.sum() == round(rate * 4000)
    np.testing.assert_array_equal(noisy.examples["y"][flipped], (y[flipped] + 1) % 5)
    if rate == 0.01:  # weights e^-5 and e^-1: of few draws, 1 in 56 is of the first half
        assert flipped[:2000].sum() <= 5
    alike = instance_dependent_label_noise(examples, rate, logits, seed=4, temperature=1e9)
    share = alike.is_flipped[:2000].sum() / alike.is_flipped.sum()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(alike.is_flipped.sum())


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (np.zeros((9, 5)), {}, "9 rows of logits"),
        (np.zeros((10, 1)), {}, "C >= 2"),
        (np.full((10, 5), np.nan), {}, "finite"),
        (np.zeros((10, 5)), {"temperature": 0.0}, "temperature is 0.0"),
        (np.zeros((10, 2)), {}, "0 .. 1"),
    ],
)
def test_instance_dependent_noise_refuses(logits, options, message):
    with pytest.raises(InputError, match=message):
        instance_dependent_label_noise(clean(10), 0.1, logits, seed=0, **options)
