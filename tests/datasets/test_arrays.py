import numpy as np
import pytest

from jaxinf.datasets import normalise
from jaxinf.errors import InputError


def test_normalise_by_hand_and_per_channel():
    images = np.array([[[[0, 51, 255]]]], np.uint8)
    got = normalise(images, mean=[0.5, 0.2, 0.0], std=[0.5, 0.1, 2.0])
    np.testing.assert_allclose(got, [[[[-1, 0, 0.5]]]], atol=1e-6)
    assert got.dtype == np.float32
    assert images.dtype == np.uint8


def test_normalise_leaves_zero_mean_and_unit_spread():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    mean, std = (images / 255).mean((0, 1, 2)), (images / 255).std((0, 1, 2))
    got = normalise(images, mean, std)
    np.testing.assert_allclose(got.mean((0, 1, 2), dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(got.std((0, 1, 2), dtype=float), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "mean", "std", "message"),
    [
        (np.zeros((1, 2), np.float32), 0, 1, "images are float32"),
        (np.zeros(3, np.uint8), 0, 1, "a leading axis"),
        (np.zeros((1, 3), np.uint8), [0, 0], 1, r"mean has shape \(2,\)"),
        (np.zeros((1, 3), np.uint8), 0, [[1, 1, 1]], r"std has shape \(1, 3\)"),
        (np.zeros((1, 3), np.uint8), 0, [1, 0, 1], "std must be positive"),
        (np.zeros((1, 3), np.uint8), 0, float("nan"), "std must be positive"),
    ],
)
def test_bad_input(images, mean, std, message):
    with pytest.raises(InputError, match=message):
        normalise(images, mean, std)
