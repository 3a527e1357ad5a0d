from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxinf.errors import InputError
from jaxinf.models.clip import Preprocess
from jaxinf.models.clip.preprocess import CLIP_MEAN, from_hugging_face, from_open_clip

FIXTURES = Path(__file__).parent / "fixtures"
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.25, 0.2)}
OPEN_CLIP = Preprocess(size=16, resize_to=16, **STATISTICS)
HUGGING_FACE = Preprocess(size=16, resize_to=18, library="transformers", **STATISTICS)


def picture(height, width, channels=3, seed=0):
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "ours"), [("open_clip", OPEN_CLIP), ("hugging_face", HUGGING_FACE)]
)
def test_what_the_libraries_make_of_it(name, ours):
    with np.load(FIXTURES / "pictures.npz") as stored:
        for index in range(4):
            image = ours(stored[f"picture_{index}"])
            np.testing.assert_allclose(image, stored[f"{name}_{index}"], atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "height", "width"),
    [
        (OPEN_CLIP, 16, 16),
        (OPEN_CLIP, 17, 16),
        (OPEN_CLIP, 16, 33),
        (OPEN_CLIP, 40, 23),
        (OPEN_CLIP, 1, 7),
        (OPEN_CLIP, 80, 3),
        (HUGGING_FACE, 23, 41),
        (HUGGING_FACE, 5, 9),
        (Preprocess(size=16, resize_to=16, squash=True), 40, 23),
        (Preprocess(size=16, resize_to=16, filter="bilinear"), 40, 23),
    ],
)
def test_host_and_device_give_the_same_pixels(ours, height, width):
    image = picture(height, width)
    pixels = ours.pixels(image)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(ours.pixels_on_device(image), pixels)


def test_centre_crops_round_differently():
    # 3 columns too many: torchvision starts at round(1.5) = 2, transformers at 1
    image = picture(16, 19)
    crop = Preprocess(size=16, resize_to=16, library="transformers")
    np.testing.assert_array_equal(OPEN_CLIP.pixels(image), image[:, 2:18])
    np.testing.assert_array_equal(crop.pixels(image), image[:, 1:17])


def test_other_modes_become_rgb():
    grey = picture(20, 30, channels=1)
    expected = OPEN_CLIP.pixels(np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(OPEN_CLIP.pixels(grey), expected)
    clear = Image.fromarray(np.dstack([picture(20, 30), np.full((20, 30), 255, np.uint8)]))
    np.testing.assert_array_equal(OPEN_CLIP.pixels(clear), OPEN_CLIP.pixels(picture(20, 30)))
    # a palette cannot be mixed: torchvision takes the nearest colour, transformers converts first
    palette = Image.fromarray(picture(20, 30)).quantize(16)
    converted = palette.convert("RGB")
    np.testing.assert_array_equal(HUGGING_FACE.pixels(palette), HUGGING_FACE.pixels(converted))
    assert not np.array_equal(OPEN_CLIP.pixels(palette), OPEN_CLIP.pixels(converted))


def test_normalise_on_both_sides():
    pixels = picture(4, 5)
    host, device = OPEN_CLIP.normalise(pixels), OPEN_CLIP.normalise(jnp.asarray(pixels))
    assert isinstance(host, np.ndarray)
    assert isinstance(device, jax.Array)
    assert host.dtype == device.dtype == np.float32
    expected = (pixels / 255.0 - STATISTICS["mean"]) / STATISTICS["std"]
    np.testing.assert_allclose(host, expected, atol=1e-6)
    np.testing.assert_allclose(device, expected, atol=1e-6)
    # augmented pictures are floating-point in 0..1
    np.testing.assert_allclose(
        OPEN_CLIP.normalise(jnp.asarray(pixels, jnp.float32) / 255), expected, atol=1e-6
    )


def test_one_and_many():
    images = [picture(20, 30), Image.fromarray(picture(30, 20))]
    batch = OPEN_CLIP(images)
    assert batch.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(batch[1], OPEN_CLIP(images[1]))


def test_bad_pictures():
    with pytest.raises(InputError, match=r"the image is float32\[4, 4, 3\]: pass uint8"):
        OPEN_CLIP(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(InputError, match=r"the image is uint8\[4, 4, 2\]: pass uint8"):
        OPEN_CLIP.pixels_on_device(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(InputError, match=r"the image has shape \(4, 4\): pass uint8\[H, W, 3\]"):
        OPEN_CLIP.pixels_on_device(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"the image has shape \(0, 4, 3\): it holds no pixels"):
        OPEN_CLIP(np.zeros((0, 4, 3), np.uint8))
    thin = Preprocess(size=224, resize_to=224)
    for pixels in (thin.pixels, thin.pixels_on_device):
        with pytest.raises(InputError, match="the image is 1 x 9999: too thin to bring its sho"):
            pixels(np.zeros((9999, 1, 3), np.uint8))


def test_open_clip_configs():
    assert from_open_clip({}, 24, "c") == Preprocess(size=24, resize_to=24)
    config = {"size": [24, 24], "mean": 0.5, "resize_mode": "squash", "interpolation": "bilinear"}
    squashed = from_open_clip(config, 24, "c")
    assert squashed.squash
    assert (squashed.mean, squashed.filter) == ((0.5, 0.5, 0.5), "bilinear")
    with pytest.raises(InputError, match="c: size is 32, but the model takes 24"):
        from_open_clip({"size": 32}, 24, "c")
    with pytest.raises(InputError, match="resize_mode 'longest' with interpolation 'bicubic'"):
        from_open_clip({"resize_mode": "longest"}, 24, "c")


def test_hugging_face_configs():
    expected = Preprocess(size=24, resize_to=24, library="transformers")
    assert from_hugging_face({}, 24, "c") == expected
    assert from_hugging_face({"size": 24, "crop_size": 24}, 24, "c") == expected
    larger = from_hugging_face({"size": {"shortest_edge": 28}}, 24, "c")
    assert (larger.resize_to, larger.mean) == (28, CLIP_MEAN)
    square = {"size": {"height": 24, "width": 24}, "do_center_crop": False}
    assert from_hugging_face(square, 24, "c").squash
    for config, message in (
        ({"do_normalize": False}, "do_normalize is off"),
        ({"resample": 1}, "only bilinear and bicubic"),
        ({"rescale_factor": 1 / 127.5}, "only bilinear and bicubic resizing of 0..255"),
        ({"do_center_crop": False}, "no centre crop after resizing to"),
        ({"crop_size": 20}, "crop_size is .* but the model takes 24"),
        ({"size": {"shortest_edge": 20}}, "leaves less than 24 pixels"),
    ):
        with pytest.raises(InputError, match=message):
            from_hugging_face(config, 24, "c")
