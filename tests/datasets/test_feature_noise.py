import numpy as np
import pytest

from jaxinf.datasets import feature_noise
from jaxinf.errors import InputError


def test_noise_has_the_given_spread_on_the_given_share_of_rows():
    x = np.full((500, 40), 7, np.float32)
    examples = {"x": x, "y": np.zeros(500, np.int32)}
    noisy = feature_noise(examples, 0.2, 0.5, seed=0)
    assert noisy.is_noisy.sum() == 100
    np.testing.assert_array_equal(noisy.examples["x"][~noisy.is_noisy], 7)
    added = noisy.examples["x"][noisy.is_noisy] - 7
    assert abs(added.mean()) < 0.04
    assert added.std() == pytest.approx(0.5, rel=0.05)
    assert noisy.examples["x"].dtype == np.float32
    assert (x == 7).all()
    again = feature_noise(examples, 0.2, 0.5, seed=0)
    np.testing.assert_array_equal(again.examples["x"], noisy.examples["x"])
    assert (feature_noise(examples, 0.2, 0.5, seed=1).is_noisy != noisy.is_noisy).any()


def test_bytes_are_rounded_and_kept_in_range():
    examples = {"x": np.tile(np.array([0, 255], np.uint8), (400, 1)), "y": np.zeros(400, int)}
    noisy = feature_noise(examples, 1.0, 10.0, seed=0).examples["x"]
    assert noisy.dtype == np.uint8
    # nothing wraps around: zeros stay low, 255 stays high, and about half are clipped
    assert noisy[:, 0].max() < 60
    assert noisy[:, 1].min() > 195
    assert 0.4 < (noisy[:, 0] == 0).mean() < 0.65


@pytest.mark.parametrize(
    ("rate", "std", "message"),
    [(1.5, 1.0, "rate is 1.5"), (0.5, 0.0, "std is 0"), (0.5, float("nan"), "std is nan")],
)
def test_bad_input(rate, std, message):
    examples = {"x": np.zeros((2, 2), np.float32), "y": np.zeros(2, int)}
    with pytest.raises(InputError, match=message):
        feature_noise(examples, rate, std, seed=0)
