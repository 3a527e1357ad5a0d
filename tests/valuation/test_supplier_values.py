import numpy as np
import pytest

from jaxinf.datasets import load_digits, split_into_sources
from jaxinf.errors import InputError
from jaxinf.valuation.supplier_values import source_gains, source_values

RNG = np.random.default_rng(0)


def test_means_sums_and_their_intervals():
    ids = np.repeat(["b", "a", "c"], [50, 30, 1])
    values = RNG.normal(size=81) + np.repeat([0.0, 2.0, 5.0], [50, 30, 1])
    mean, total = source_values(values, ids), source_values(values, ids, reduce="sum")
    assert mean.sources.tolist() == ["a", "b", "c"]
    assert mean.counts.tolist() == [30, 50, 1]
    for at, name in enumerate("ab"):
        own = values[ids == name]
        assert mean.values[at] == pytest.approx(own.mean())
        assert total.values[at] == pytest.approx(own.sum())
        half = 1.96 * own.std() / np.sqrt(len(own))
        assert mean.high[at] - mean.low[at] == pytest.approx(2 * half, rel=0.1)
        assert mean.low[at] < own.mean() < mean.high[at]
    assert mean.values[2] == values[-1]
    assert np.isnan(mean.low[2])
    assert np.isnan(mean.high[2])


def nearest(x, y, a, b):
    """Mean squared distance from a validation example to the nearest of its class."""
    squares = ((a[:, None] - x[None]) ** 2).sum(-1)
    return np.where(b[:, None] == y[None], squares, 1e3).min(axis=1).mean()


def test_a_supplier_with_wrong_labels_is_worth_less_on_average():
    train, test = load_digits()
    dealt = split_into_sources(train, 3, label_noise=[0, 0.5, 0.1], seed=0)
    flat = dealt.examples["x"].reshape(len(train["y"]), -1)
    ours = -((flat[:, None] - test["x"].reshape(1, -1, 64)[:, :100]) ** 2).sum(-1)
    agree = dealt.examples["y"][:, None] == test["y"][None, :100]
    values = np.where(agree, ours, -1e3).max(axis=1)
    found = source_values(values, dealt.source)
    assert found.values.argmin() == 1
    assert found.high[1] < found.low[2] < found.low[0]


def test_gains_are_differences_of_distances_and_show_what_is_there_twice():
    a, b = RNG.normal(size=(20, 3)).astype(np.float32), np.arange(20, dtype=np.int32) % 2
    x, y = np.concatenate([a, a, a[:5] + 9]), np.concatenate([b, b, b[:5]])
    ids = np.repeat([10, 20, 30], [20, 20, 5])
    found = source_gains(nearest, x, y, a, b, ids)
    assert found.sources.tolist() == [10, 20, 30]
    assert found.distance == 0
    np.testing.assert_array_equal(found.gains, 0)  # either copy alone is as good as both
    assert found.alone[:2].tolist() == [0, 0]
    assert found.alone[2] > 1
    halves = source_gains(nearest, x[20:], y[20:], a, b, ids[20:])
    assert halves.gains[0] == halves.alone[1] - halves.distance > 0


def test_one_supplier_has_no_gain_to_speak_of():
    x, y = np.eye(3, dtype=np.float32), np.zeros(3, np.int32)
    found = source_gains(nearest, x, y, x, y, [1, 1, 1])
    assert np.isnan(found.gains[0])
    assert found.alone[0] == found.distance


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: source_values([1.0, 2.0], ["a"]), r"source_ids have shape \(1,\)"),
        (lambda: source_values([1.0, np.inf], ["a", "b"]), "first in example 1"),
        (lambda: source_values([1.0], ["a"], reduce="max"), "reduce is 'max'"),
        (lambda: source_values([1.0, 1, 2], [0, 0, 0], confidence=2), "confidence is 2"),
        (
            lambda: source_gains(nearest, np.eye(2, dtype=np.float32), np.zeros(3, int), 0, 0, [1]),
            "have 2 rows and train_labels 3",
        ),
        (
            lambda: source_gains(
                lambda *sets: np.nan, np.eye(2, dtype=np.float32), np.zeros(2, int), 0, 0, [1, 2]
            ),
            "one finite number is needed",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
