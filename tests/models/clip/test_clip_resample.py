import jax
import numpy as np
import pytest
from PIL import Image

from jaxinf.models.clip.resample import pass_order, resize

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# (H, W) -> (height, width): odd sizes, both ways, extremes of one pixel
COMPILED = jax.jit(resize, static_argnums=(1, 2, 3))
SIZES = [
    ((37, 53), (24, 24)),
    ((53, 37), (24, 24)),
    ((24, 24), (24, 24)),
    ((24, 61), (24, 24)),
    ((61, 24), (24, 24)),
    ((5, 7), (31, 29)),
    ((7, 5), (29, 31)),
    ((1, 1), (9, 9)),
    ((1, 40), (8, 80)),
    ((40, 1), (80, 8)),
    ((1, 300), (2, 7)),
    ((300, 1), (7, 2)),
    ((211, 2), (3, 5)),
    ((2, 211), (5, 3)),
    ((99, 100), (98, 101)),
    ((100, 99), (101, 98)),
    ((57, 79), (18, 71)),
    ((90, 17), (11, 16)),
    ((17, 90), (16, 11)),
    ((64, 64), (1, 1)),
    ((255, 3), (254, 4)),
    ((33, 257), (5, 224)),
    ((224, 224), (223, 225)),
    ((13, 11), (130, 11)),
]


def picture(shape):
    """Six channels: noise, and the same in black and white, where the cubic overshoots."""
    noise = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return np.dstack([noise, np.where(noise > 127, 255, 0).astype(np.uint8)])


def by_pillow(image, height, width, kind):
    halves = [Image.fromarray(image[..., :3]), Image.fromarray(image[..., 3:])]
    return np.dstack([half.resize((width, height), FILTERS[kind]) for half in halves])


@pytest.mark.parametrize(("shape", "new_shape"), SIZES)
def test_every_bit_is_that_of_pillow(shape, new_shape):
    image = picture(shape)
    found = COMPILED(image, *new_shape)
    np.testing.assert_array_equal(found, by_pillow(image, *new_shape, "bicubic"))


@pytest.mark.parametrize(("shape", "new_shape"), SIZES[:3])
def test_the_other_filter(shape, new_shape):
    image = picture(shape)
    found = COMPILED(image, *new_shape, "bilinear")
    np.testing.assert_array_equal(found, by_pillow(image, *new_shape, "bilinear"))


def test_it_jits_and_maps():
    batch = np.stack([picture((19, 23)), picture((19, 23))[::-1]])
    mapped = jax.jit(jax.vmap(lambda image: resize(image, 8, 9)))(batch)
    for image, result in zip(batch, mapped, strict=True):
        np.testing.assert_array_equal(result, resize(image, 8, 9))


@pytest.mark.parametrize(
    ("shape", "new_shape", "version", "rows_first"),
    [
        ((100, 50), (20, 20), (13, 0), True),
        ((100, 50), (40, 20), (13, 0), False),
        ((100, 50), (101, 200), (13, 1), False),
        ((100, 50), (20, 20), (12, 3), False),
        ((101, 1), (20, 20), (12, 2), True),
        ((100, 1), (20, 20), (12, 2), False),
        ((101, 1), (20, 20), (12, 1), False),
        ((101, 1), (202, 2), (12, 2), False),
    ],
)
def test_the_order_follows_the_version(shape, new_shape, version, rows_first):
    assert pass_order(shape, new_shape, version) == ((0, 1) if rows_first else (1, 0))
