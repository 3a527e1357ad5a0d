import numpy as np
import pytest
from PIL import Image

from jaxinf.datasets import read_image_folder
from jaxinf.errors import InputError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 6, 5, 3), np.uint8)
    save(tmp_path / "zebra" / "1.png", pixels[0])
    save(tmp_path / "ant" / "b.png", pixels[1])
    save(tmp_path / "ant" / "a.png", pixels[2])
    save(tmp_path / "ant" / "deep" / "c.png", pixels[3])
    (tmp_path / "README").write_text("not in a class folder")
    (tmp_path / ".hidden").mkdir()
    return tmp_path, pixels[[2, 1, 3, 0]]


def test_round_trip_in_the_order_of_names(folder):
    path, pixels = folder
    data = read_image_folder(path)
    np.testing.assert_array_equal(data.examples["x"], pixels)
    np.testing.assert_array_equal(data.examples["y"], [0, 0, 0, 1])
    assert data.examples["y"].dtype == np.int32
    assert data.classes == ("ant", "zebra")
    assert data.files == ("ant/a.png", "ant/b.png", "ant/deep/c.png", "zebra/1.png")
    assert data.skipped == ()


def test_unreadable_files_are_left_out_and_named(folder):
    path, pixels = folder
    whole = (path / "ant" / "a.png").read_bytes()
    (path / "ant" / "a2.png").write_bytes(whole[: len(whole) // 2])
    (path / "zebra" / "notes.txt").write_text("no image")
    (path / "zebra" / ".thumbs").write_bytes(b"hidden")
    data = read_image_folder(path)
    np.testing.assert_array_equal(data.examples["x"], pixels)
    assert [name for name, _ in data.skipped] == ["ant/a2.png", "zebra/notes.txt"]
    assert all(reason and str(path) not in reason for _, reason in data.skipped)


def test_resizing_and_grey_images(folder):
    path, _ = folder
    save(path / "zebra" / "2.png", np.full((9, 9), 77, np.uint8))
    with pytest.raises(InputError, match=r"zebra/2.png is 9x9 and ant/a.png 6x5: give size"):
        read_image_folder(path)
    data = read_image_folder(path, size=(4, 8))
    assert data.examples["x"].shape == (5, 4, 8, 3)
    assert (data.examples["x"][-1] == 77).all()
    assert read_image_folder(path, size=3).examples["x"].shape == (5, 3, 3, 3)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_image_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="no subfolders"):
        read_image_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"no readable image in it \(1 files skipped\)"):
        read_image_folder(tmp_path)
    for size in (0, (4, -1), (4, 4, 3)):
        with pytest.raises(InputError, match="size is"):
            read_image_folder(tmp_path, size=size)
