"""Figures are PNG files that show what they were given."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxinf.errors import InputError
from jaxinf.report.figures import histogram, image_png, line_chart


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_bytes_come_back_as_they_were():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode(image_png(pixels)), pixels)


def test_values_in_unit_range_keep_their_brightness():
    np.testing.assert_array_equal(decode(image_png(np.full((2, 2, 1), 0.2))), np.full((2, 2), 51))


def test_standardised_pixels_are_stretched_over_the_whole_range():
    shown = decode(image_png(np.array([[-2.0, 0.0], [1.0, 2.0]])))
    np.testing.assert_array_equal(shown, [[0, 128], [191, 255]])


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (0, 4), (1, 2, 2, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(InputError, match="cannot be shown"):
        image_png(np.zeros(shape))


def test_nan_pixels_are_refused():
    with pytest.raises(InputError, match="NaN"):
        image_png(np.full((2, 2), np.nan))


def test_line_chart_draws_every_line():
    one = decode(line_chart({"a": ([1, 10], [0, 1])}, xlabel="x", ylabel="y", log_x=True))
    two = decode(
        line_chart(
            {"a": ([1, 10], [0, 1]), "b": ([1, 10], [1, 0])},
            xlabel="x",
            ylabel="y",
            baselines={"b"},
            chance=([1, 10], [0, 1]),
            log_x=True,
        )
    )
    assert one.std() > 0
    assert (two < 250).sum() > (one < 250).sum()


def test_histogram_refuses_an_empty_group():
    assert decode(histogram({"a": [0.0, 1.0], "b": [1.0]}, xlabel="x")).std() > 0
    with pytest.raises(InputError, match="group 'b' is empty"):
        histogram({"a": [0.0], "b": []}, xlabel="x")
