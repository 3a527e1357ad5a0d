import io

import numpy as np
import pytest
from PIL import Image

from jaxinf.errors import InputError
from jaxinf.report.roc_chart import roc_chart


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_better_curve_is_another_picture_and_baselines_are_grey():
    diagonal = ([0.0, 1.0], [0.0, 1.0])
    better = ([0.0, 0.01, 1.0], [0.0, 0.6, 1.0])
    first = pixels(roc_chart({"attack": diagonal}, lowest=1e-3))
    second = pixels(roc_chart({"attack": better}, lowest=1e-3))
    assert first.shape == second.shape
    assert (first != second).any()
    blue = lambda image: ((image[..., 2] - image[..., 0]) > 100).sum()
    grey = pixels(roc_chart({"attack": better}, lowest=1e-3, baselines={"attack"}))
    assert blue(second) > 1000
    assert blue(grey) == 0


@pytest.mark.parametrize(
    ("curves", "lowest", "reason"),
    [
        ({}, 0.1, "needs a curve"),
        ({"a": ([0, 1], [0, 1])}, 0.0, "lowest rate between 0 and 1"),
        ({"a": ([0, 2], [0, 1])}, 0.1, "'a' is no ROC curve"),
        ({"a": ([0, 1], [0, 0.5, 1])}, 0.1, "'a' is no ROC curve"),
    ],
)
def test_what_is_no_curve_is_refused(curves, lowest, reason):
    with pytest.raises(InputError, match=reason):
        roc_chart(curves, lowest=lowest)
