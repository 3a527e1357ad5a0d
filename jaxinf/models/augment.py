"""Random changes to batches of images while training, with explicit keys."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxinf.typing import Batch


@partial(jax.jit, static_argnames="padding")
def random_crop(key: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
    """Shift each image by up to `padding` pixels in each direction; what is uncovered is 0.

    Args:
        key: random key; image b depends on the key and b alone.
        images: [B, H, W, c].
        padding: the largest shift, in pixels.

    Returns:
        [B, H, W, c], same dtype.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(key: jax.Array, image: jax.Array) -> jax.Array:
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(crop)(_image_keys(key, images), padded)


@jax.jit
def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability 1/2.

    Args:
        key: random key; image b depends on the key and b alone.
        images: [B, H, W, c].

    Returns:
        [B, H, W, c], same dtype.

    Example:
        >>> random_flip(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """
    flip = jax.vmap(jax.random.bernoulli)(_image_keys(key, images))
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def crop_and_flip(key: jax.Array, batch: Batch) -> Batch:
    """The usual CIFAR augmentation of `batch["x"]`: `random_crop` by 4 pixels, `random_flip`.

    Args:
        key: random key.
        batch: dict with images [B, H, W, c] under "x".

    Returns:
        The batch with "x" replaced; pass this function as `augment` to `fit`.

    Example:
        >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
        >>> crop_and_flip(jax.random.key(0), batch)["x"].shape
        (2, 8, 8, 3)
    """
    crop_key, flip_key = jax.random.split(key)
    return {**batch, "x": random_flip(flip_key, random_crop(crop_key, batch["x"]))}


def _image_keys(key: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
