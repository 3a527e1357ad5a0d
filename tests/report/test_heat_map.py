import io

import numpy as np
import pytest
from PIL import Image

from jaxinf.errors import InputError
from jaxinf.report.heat_map import heat_map

LABELS = {"ylabel": "rows", "xlabel": "columns", "value_label": "n"}


def pixels(matrix):
    rows, columns = np.shape(matrix)
    png = heat_map(matrix, list(map(str, range(rows))), list(map(str, range(columns))), **LABELS)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_large_numbers_are_dark_and_lie_in_their_own_row():
    size = 20
    matrix = np.zeros((size, size))
    matrix[: size // 2] = 1
    picture = pixels(matrix).astype(int)
    down = picture[:, picture.shape[1] // 3]
    dark_blue = (down[:, 0] < 60) & (down[:, 2] > 80)
    share = dark_blue.mean()
    assert 0.35 < share < 0.5
    assert np.flatnonzero(dark_blue).max() < 0.55 * len(down)


def test_it_does_not_grow_without_end():
    assert max(pixels(np.zeros((300, 200))).shape) < 2000


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.zeros((2, 3)), "shape"), (np.full((2, 2), np.nan), "NaN"), (np.zeros((0, 0)), "shape")],
)
def test_bad_input(matrix, message):
    with pytest.raises(InputError, match=message):
        heat_map(matrix, ["a", "b"], ["a", "b"], **LABELS)
