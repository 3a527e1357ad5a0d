import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.models import crop_and_flip, random_crop, random_flip

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(300, 6, 6, 2)), jnp.float32)


def test_crop_shifts_by_every_offset_and_fills_with_zeros():
    out = np.asarray(random_crop(jax.random.key(0), IMAGES, padding=1))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = set()
    for image, source in zip(out, padded, strict=True):
        matches = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if np.array_equal(image, source[top : top + 6, left : left + 6])
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 9


def test_flip_mirrors_about_half():
    out = np.asarray(random_flip(jax.random.key(0), IMAGES))
    mirrored = (out == np.asarray(IMAGES)[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (out == np.asarray(IMAGES)).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_an_image_depends_on_key_and_position_alone():
    few = crop_and_flip(jax.random.key(1), {"x": IMAGES[:3], "y": jnp.arange(3)})
    many = crop_and_flip(jax.random.key(1), {"x": IMAGES, "y": jnp.arange(300)})
    other = crop_and_flip(jax.random.key(2), {"x": IMAGES, "y": jnp.arange(300)})
    np.testing.assert_array_equal(few["x"], many["x"][:3])
    np.testing.assert_array_equal(few["y"], np.arange(3))
    assert not np.array_equal(many["x"], other["x"])
