import numpy as np
import pytest

from jaxinf.datasets.emoji import read_emoji_captions
from jaxinf.errors import InputError

GOOD = {
    "images": np.zeros((3, 4, 4, 3), np.uint8),
    "caption": np.array(["a cat", "a dog", "a cow"]),
    "base": np.array(["cat", "dog", "cow"]),
    "style": np.array(["flat", "flat", "round"]),
}


def test_an_archive_is_read(tmp_path):
    np.savez(tmp_path / "e.npz", **GOOD)
    found = read_emoji_captions(tmp_path / "e.npz")
    assert found.images.shape == (3, 4, 4, 3)
    assert found.captions == ("a cat", "a dog", "a cow")
    assert found.base.tolist() == ["cat", "dog", "cow"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": np.zeros((3, 4, 4, 3))}, r"images are float64\[3, 4, 4, 3\]"),
        ({"base": np.arange(3)}, "base is int64"),
        ({"style": np.array(["flat"])}, r"style is <U4\[1\]"),
        ({"caption": np.array(["a cat", " ", ""])}, "2 captions are empty, first that of row 1"),
        ({"caption": None}, "no caption in it"),
    ],
)
def test_archives_that_do_not_fit_are_refused(tmp_path, change, reason):
    arrays = {name: array for name, array in (GOOD | change).items() if array is not None}
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        read_emoji_captions(tmp_path / "e.npz")


def test_the_real_archive_has_groups_of_renditions(shared_data):
    found = read_emoji_captions(shared_data / "emoji_captions.npz")
    assert found.images.shape == (10440, 64, 64, 3)
    assert len(np.unique(found.base)) < len(found.captions) / 3
