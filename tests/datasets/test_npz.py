import io

import numpy as np
import pytest
from PIL import Image

from jaxinf.datasets import read_jpeg_pack, read_npz
from jaxinf.errors import InputError


def test_grey_images_get_a_channel_axis_and_labels_become_int32(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=np.arange(4, dtype=np.uint8))
    got = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(got["x"], x[..., None])
    np.testing.assert_array_equal(got["y"], np.arange(4))
    assert got["x"].dtype == np.uint8
    assert got["y"].dtype == np.int32


def test_other_inputs_stay_as_stored(tmp_path):
    arrays = {
        "colour": np.zeros((3, 4, 4, 3), np.uint8),
        "column": np.array([[2], [0], [1]]),
        "table": np.ones((3, 7), np.float32),
        "target": np.array([0.5, 1.5, 2.5], np.float32),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    images = read_npz(tmp_path / "a.npz", x="colour", y="column")
    assert images["x"].shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(images["y"], [2, 0, 1])
    table = read_npz(tmp_path / "a.npz", x="table", y="target")
    assert table["x"].dtype == table["y"].dtype == np.float32
    np.testing.assert_array_equal(table["y"], arrays["target"])


def test_archives_that_cannot_be_used_are_refused(tmp_path):
    x, y = np.zeros((3, 2), np.float32), np.arange(3)
    cases = {
        "no x_train and no y_train in it; it holds a, b": {"a": x, "b": y},
        "one label per row": {"x_train": x, "y_train": y[:2]},
        "not numeric": {"x_train": x, "y_train": np.array(["a", "b", "c"])},
        "not an .npz archive of plain arrays": {"x_train": x, "y_train": y.astype(object)},
        "x64 flag is off": {"x_train": x.astype(float), "y_train": y},
    }
    for n, (message, arrays) in enumerate(cases.items()):
        np.savez(tmp_path / f"{n}.npz", **arrays)
        with pytest.raises(InputError, match=message):
            read_npz(tmp_path / f"{n}.npz")
    with pytest.raises(InputError, match="no such file"):
        read_npz(tmp_path / "absent.npz")
    for name, data in {"junk.npz": b"junk", "empty.npz": b"", "cut.npz": b"PK\3\4junk"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="npz archive of plain arrays"):
            read_npz(tmp_path / name)
    np.save(tmp_path / "single.npy", x)
    with pytest.raises(InputError, match="a single array"):
        read_npz(tmp_path / "single.npy")


def make_pack(path, images, **changes):
    """Pack images whose JPEG files share their header, as images of one size do."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    start = files[0].index(b"\xff\xda")
    assert {file[:start] for file in files} == {files[0][:start]}
    bodies = [file[start:-2] for file in files]
    arrays = {
        "header": np.frombuffer(files[0][:start], np.uint8),
        "body": np.frombuffer(b"".join(bodies), np.uint8),
        "offsets": np.cumsum([0, *map(len, bodies)]).astype(np.uint32),
        "label": np.arange(len(images), dtype=np.uint8) % 3,
    }
    np.savez(path, **{**arrays, **changes})
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def test_jpeg_pack_round_trip(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (7, 16, 24, 3), np.uint8)
    decoded = make_pack(tmp_path / "pack.npz", images)
    got = read_jpeg_pack(tmp_path / "pack.npz")
    np.testing.assert_array_equal(got["x"], decoded)
    np.testing.assert_array_equal(got["y"], np.arange(7) % 3)
    some = read_jpeg_pack(tmp_path / "pack.npz", [5, 0, 5])
    np.testing.assert_array_equal(some["x"], got["x"][[5, 0, 5]])
    np.testing.assert_array_equal(some["y"], [2, 0, 2])
    assert some["x"].dtype == np.uint8
    assert some["y"].dtype == np.int32


def test_jpeg_packs_that_cannot_be_used_are_refused(tmp_path):
    pack = tmp_path / "pack.npz"
    images = np.zeros((3, 8, 8, 3), np.uint8)
    make_pack(pack, images)
    for indices in ([3], [-1], [], [0.5]):
        with pytest.raises(InputError, match="row numbers from 0 to 2"):
            read_jpeg_pack(pack, indices)
    for offsets in ([0, 5], [0, 9, 5, 9], [0, 1, 2, 10**6]):
        make_pack(pack, images, offsets=np.array(offsets))
        with pytest.raises(InputError, match="do not cut the body into 3 images"):
            read_jpeg_pack(pack)
    make_pack(pack, images, header=np.zeros(600, np.uint8))
    with pytest.raises(InputError, match="image 2 cannot be decoded"):
        read_jpeg_pack(pack, [2])


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_grey_images(shared_data, name):
    test = read_npz(shared_data / f"{name}.npz", x="x_test", y="y_test")
    assert test["x"].shape == (10000, 28, 28, 1)
    assert test["x"].max() == 255
    counts = np.bincount(test["y"])
    assert counts.shape == (10,)
    assert counts.min() > 800


def test_real_jpeg_pack(shared_data):
    got = read_jpeg_pack(shared_data / "cifar10_jpeg.npz", range(50))
    assert got["x"].shape == (50, 32, 32, 3)
    # CIFAR-10's first training images: a frog, two trucks, a deer and a car
    np.testing.assert_array_equal(got["y"][:5], [6, 9, 9, 4, 1])
    assert 90 < got["x"].mean() < 150
