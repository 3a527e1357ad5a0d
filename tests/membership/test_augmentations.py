"""Held to independent answers: PIL's float resize, numpy, colorsys and scipy."""

import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxinf.errors import InputError
from jaxinf.membership.augmentations import (
    ColorJitter,
    GaussianBlur,
    RandomAffine,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    affine,
    gaussian_blur,
    resized_crop,
)

IMAGE = np.random.default_rng(0).random((13, 17, 3)).astype(np.float32)
SQUARE = IMAGE[:, :13]
KEYS = jax.random.split(jax.random.key(0), 200)


@pytest.mark.parametrize(
    "box", [(0, 0, 13, 17), (2, 3, 9, 11), (5, 6, 3, 2), (0, 10, 13, 7), (12, 16, 1, 1)]
)
def test_crop_and_resize_as_pil_does_in_float(box):
    top, left, height, width = box
    crop = IMAGE[top : top + height, left : left + width]
    expected = [
        Image.fromarray(crop[..., c]).resize((17, 13), Image.Resampling.BILINEAR) for c in range(3)
    ]
    got = jax.jit(resized_crop)(IMAGE, *map(float, box))
    np.testing.assert_allclose(got, np.stack(expected, axis=-1), atol=2e-6)


def test_one_axis_is_stretched_alone():
    wide = np.random.default_rng(1).random((8, 30, 1)).astype(np.float32)
    got = jax.jit(resized_crop)(wide, 0.0, 0.0, 8.0, 15.0)
    expected = Image.fromarray(wide[:, :15, 0]).resize((30, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(got[..., 0], expected, atol=2e-6)


def test_boxes_of_random_crops_keep_to_the_ranges():
    crop = RandomResizedCrop(scale=(0.2, 0.5), ratio=(0.5, 2.0))
    top, left, height, width = jax.vmap(lambda key: jnp.stack(crop.box(key, 40, 60)))(KEYS).T
    for edge in (top, left, height, width):
        np.testing.assert_array_equal(edge, np.round(edge))
    assert (top >= 0).all() and (top + height <= 40).all()  # noqa: PT018
    assert (left >= 0).all() and (left + width <= 60).all()  # noqa: PT018
    area = np.asarray(height * width) / 2400
    # sides are rounded to whole pixels
    assert 0.18 < area.min() < 0.25
    assert 0.45 < area.max() < 0.53
    aspect = np.asarray(width / height)
    assert 0.47 < aspect.min() < 0.6
    assert 1.7 < aspect.max() < 2.1
    # uniform in the area
    assert area.mean() == pytest.approx(0.35, abs=0.03)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.12)


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [
        ((10, 100), (0.75, 1.25), (0, 44, 10, 12)),  # too wide for any: the largest central one
        ((100, 10), (0.8, 1.25), (44, 0, 12, 10)),
    ],
)
def test_where_no_crop_fits_the_largest_central_one_is_taken(size, ratio, box):
    crop = RandomResizedCrop(scale=(0.9, 1.0), ratio=ratio)
    assert [int(edge) for edge in crop.box(KEYS[0], *size)] == list(box)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns(interpolation, quarters):
    got = affine(SQUARE, angle=-90.0 * quarters, interpolation=interpolation)
    np.testing.assert_allclose(got, np.rot90(SQUARE, quarters), atol=2e-6)


def test_shifts_are_to_the_right_and_down_and_leave_black():
    got = affine(IMAGE, translate=(3.0, 2.0))
    expected = np.zeros_like(IMAGE)
    expected[2:, 3:] = IMAGE[:-2, :-3]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_scale_and_shear_as_scipys_affine_transform():
    scale, shear, angle = 1.3, math.radians(12), math.radians(-25)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = scale * turn @ np.array([[1, -math.tan(shear)], [0, 1]])
    # scipy maps output to input, in (row, column) order
    backward = np.linalg.inv(forward)[::-1, ::-1]
    centre = np.array([6.0, 8.0])
    expected = ndimage.affine_transform(
        IMAGE[..., 0].astype(float), backward, centre - backward @ centre, order=1,
        mode="grid-constant",
    )  # fmt: skip
    got = affine(IMAGE, angle=-25.0, scale=scale, shear=12.0)
    np.testing.assert_allclose(got[..., 0], expected, atol=1e-5)


def test_brightness_contrast_and_saturation():
    grey = IMAGE @ np.array([0.2989, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(adjust_brightness(IMAGE, 1.7), np.clip(1.7 * IMAGE, 0, 1), atol=1e-6)
    for factor in (0.0, 0.4, 1.9):
        expected = np.clip(factor * IMAGE + (1 - factor) * grey.mean(), 0, 1)
        np.testing.assert_allclose(adjust_contrast(IMAGE, factor), expected, atol=1e-6)
        expected = np.clip(factor * IMAGE + (1 - factor) * grey[..., None], 0, 1)
        np.testing.assert_allclose(adjust_saturation(IMAGE, factor), expected, atol=1e-6)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.3])
def test_hue_as_colorsys_turns_it(shift):
    image = IMAGE.copy()
    image[0, :4] = [[0.3, 0.3, 0.3], [0, 0, 0], [1, 1, 1], [1, 0.5, 0.5]]  # greys have no hue

    def turn(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)

    expected = np.apply_along_axis(turn, 2, image.astype(float))
    np.testing.assert_allclose(adjust_hue(image, shift), expected, atol=2e-6)


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.7), (9, 1.6)])
def test_blur_as_scipys(size, sigma):
    reach = size // 2
    expected = ndimage.gaussian_filter(
        IMAGE.astype(float), (sigma, sigma, 0), mode="mirror", radius=(reach, reach, 0)
    )
    np.testing.assert_allclose(gaussian_blur(IMAGE, sigma, kernel_size=size), expected, atol=2e-6)


@pytest.mark.parametrize(
    "transformation",
    [
        RandomResizedCrop(scale=(1.0, 1.0), ratio=(17 / 13, 17 / 13)),
        RandomRotation(0.0),
        RandomRotation(0.0, "bilinear"),
        RandomAffine(0.0),
        ColorJitter(),
        RandomHorizontalFlip(0.0),
        GaussianBlur(1),
        GaussianBlur(5, sigma=(1e-3, 1e-3)),
    ],
    ids=str,
)
def test_identity_parameters_change_nothing(transformation):
    np.testing.assert_allclose(jax.jit(transformation)(KEYS[0], IMAGE), IMAGE, atol=2e-6)


@pytest.fixture(scope="module")
def views():
    """200 random views by each transformation, compiled and vmapped."""
    made = {
        "crop": RandomResizedCrop(),
        "rotation": RandomRotation(30.0),
        "affine": RandomAffine(10.0, (0.2, 0.1), (0.8, 1.2), 5.0, "bilinear"),
        "jitter": ColorJitter(0.5, 0.5, 0.5, 0.2),
        "flip": RandomHorizontalFlip(),
        "blur": GaussianBlur(5),
    }
    apply = lambda change: jax.jit(jax.vmap(change, in_axes=(0, None)))(KEYS, IMAGE)
    return {name: np.asarray(apply(change)) for name, change in made.items()}


@pytest.mark.parametrize("name", ["crop", "rotation", "affine", "jitter", "blur"])
def test_views_differ_and_stay_in_range(views, name):
    assert views[name].shape == (200, 13, 17, 3)
    assert views[name].dtype == np.float32
    assert views[name].min() >= -1e-6
    assert views[name].max() <= 1 + 1e-6
    assert np.ptp(views[name], axis=0).max() > 0.1


def test_flips_half_of_the_time(views):
    flipped = (views["flip"] == IMAGE[:, ::-1]).all(axis=(1, 2, 3))
    kept = (views["flip"] == IMAGE).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 70 < flipped.sum() < 130


def test_jitter_alone_has_its_range():
    brightness = jax.vmap(ColorJitter(brightness=0.5), in_axes=(0, None))
    factors = np.asarray(brightness(KEYS, jnp.full((1, 1, 3), 0.5))).max(axis=(1, 2, 3)) * 2
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5
    assert factors.mean() == pytest.approx(1, abs=0.08)


def test_jitter_takes_its_changes_in_random_order():
    # brightness clips at 1, so an order can be told by the result
    jitter = jax.jit(jax.vmap(ColorJitter(brightness=0.9, contrast=0.9), in_axes=(0, None)))
    image = jnp.asarray([[[0.9] * 3, [0.1] * 3]])
    first = np.asarray(jitter(KEYS, image))
    factors = []
    for key in KEYS:
        _, *draws = jax.random.split(key, 5)
        factors.append([float(jax.random.uniform(k, (), jnp.float32, 0.1, 1.9)) for k in draws[:2]])
    orders = set()
    for got, (bright, contrast) in zip(first, factors, strict=True):
        one = np.asarray(adjust_contrast(adjust_brightness(image, bright), contrast))
        two = np.asarray(adjust_brightness(adjust_contrast(image, contrast), bright))
        hits = [np.allclose(got, x, atol=1e-5) for x in (one, two)]
        assert any(hits)
        if not all(hits):
            orders.add(hits[0])
    assert orders == {True, False}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(scale=(0.5, 0.1)), "scale is"),
        (lambda: RandomResizedCrop(scale=(0.5, 1.5)), "scale is"),
        (lambda: RandomResizedCrop(ratio=(0.0, 1.0)), "ratio is"),
        (lambda: RandomRotation(-3.0), "degrees is"),
        (lambda: RandomRotation(3.0, "cubic"), "interpolation is 'cubic'"),
        (lambda: RandomAffine(3.0, translate=(2.0, 0.0)), "translate is"),
        (lambda: RandomAffine(3.0, shear=120.0), "shear is"),
        (lambda: ColorJitter(hue=0.7), "hue is 0.7"),
        (lambda: ColorJitter(contrast=-1.0), "contrast is -1.0"),
        (lambda: RandomHorizontalFlip(1.5), "probability is 1.5"),
        (lambda: GaussianBlur(4), "kernel_size is 4"),
        (lambda: GaussianBlur(3, sigma=(0.0, 1.0)), "sigma is"),
        (lambda: gaussian_blur(IMAGE[:3], 1.0, kernel_size=7), "too small for kernel 7"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
