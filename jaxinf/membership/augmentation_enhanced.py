"""The augmentation-enhanced attack: a member's similarity drops more when its image is changed."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Float, Int, Real

from jaxinf.errors import InputError, check_count, check_examples, check_finite, check_key
from jaxinf.membership.augmentations import (
    ColorJitter,
    GaussianBlur,
    RandomAffine,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
)
from jaxinf.membership.checks import check_features
from jaxinf.membership.cosine import cosine
from jaxinf.typing import AnyArray

Transformation: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]
"""`transformation(key, image) -> image`, float[H, W, 3] in [0, 1]; hashable: frozen data is."""

TRANSFORMATIONS: tuple[Transformation, ...] = (
    RandomResizedCrop(scale=(0.5, 1.0)),
    RandomRotation(15.0),
    RandomAffine(10.0, translate=(0.1, 0.1), scale=(0.9, 1.1)),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    RandomHorizontalFlip(probability=1.0),
    GaussianBlur(5),
)
"""Six mild changes. The published attack names its kinds but not its settings: these are ours."""


# in the images that a CPU encodes together: with more it waits for its memory
_NUMBERS_AT_ONCE = 1 << 22


class ViewSimilarities(NamedTuple):
    """Similarities from which any weighting's score follows without encoding again.

    Attributes:
        original: float[N], of the images as they are.
        views: float[N, K, draws], of their random views.
    """

    original: Float[jax.Array, " N"]
    views: Float[jax.Array, "N K draws"]


def augmentation_enhanced_attack(
    encode_image: Callable[[jax.Array], jax.Array],
    images: Real[AnyArray, "N H W 3"],
    text_features: Float[AnyArray, "N d"],
    *,
    key: jax.Array,
    transformations: Sequence[Transformation] = TRANSFORMATIONS,
    draws: int = 4,
    weight: float = 0.3,
    example_ids: Int[AnyArray, " N"] | None = None,
    batch_size: int | None = None,
) -> Float[jax.Array, " N"]:
    """Score each pair by its similarity and by how much of it transformations cost (AEA).

    `cs + weight · Σ_k (cs − cs_k)`, cs the cosine similarity of image and text, cs_k the mean
    over `draws` random views of transformation k; the sum is over the K transformations, so the
    weight that suits depends on K. Weight and transformations belong fixed beforehand, on
    validation pairs: a scan on the labels that are reported finds something in noise.

    This is a working form: the equation and the settings of the published attack are not in
    its released code.

    Cost: 1 + K · draws image passes per pair; texts are not encoded again. A view depends on the
    key and the example's id alone, so neither the batch size nor a split of the examples over
    devices or runs changes the scores, but for rounding.

    Args:
        encode_image: float[B, H, W, 3] in [0, 1] to features float[B, d]; the encoder's own
            normalisation of colours belongs inside. Make it a
            `jax.tree_util.Partial(apply, params)`, so that the weights are passed to the
            compiled program and not baked in.
        images: [N, H, W, 3] at the encoder's size, uint8 or float in [0, 1].
        text_features: number[N, d].
        key: random key.
        transformations: see `jaxinf.membership.augmentations`.
        draws: views per transformation.
        weight: of the drop; 0 is `cosine_similarity_attack`.
        example_ids: int[N], one number for each example across all calls; default 0 to N − 1.
        batch_size: examples whose views are encoded together; memory grows with it. Default: 8,
            and on a CPU as many as stay in its caches (one, for 25 views of 224 pixels).

    Returns:
        float[N], higher = more likely a member.

    Raises:
        InputError: for images or features of the wrong shape, type or range, rows that do not
            match, no transformations, or options out of range.

    Reference:
        Ko et al., "Practical Membership Inference Attacks Against Large-Scale Multi-Modal Models:
        A Pilot Study", ICCV 2023 (arXiv 2310.00108).

    Example:
        >>> images = jnp.ones((2, 4, 4, 3))
        >>> scores = augmentation_enhanced_attack(lambda x: x.mean((1, 2)), images,
        ...     jnp.ones((2, 3)), key=jax.random.key(0),
        ...     transformations=[RandomHorizontalFlip()])
        >>> scores.round(5).tolist()
        [1.0, 1.0]
    """
    if not isinstance(weight, Tracer) and not np.isfinite(weight):
        raise InputError(f"weight is {weight}: a finite number")
    similarities = view_similarities(
        encode_image,
        images,
        text_features,
        key=key,
        transformations=transformations,
        draws=draws,
        example_ids=example_ids,
        batch_size=batch_size,
    )
    return augmentation_score(similarities, weight)


def augmentation_score(similarities: ViewSimilarities, weight: float) -> Float[jax.Array, " N"]:
    """Score of `augmentation_enhanced_attack` for one weight, from similarities kept.

    Example:
        >>> kept = ViewSimilarities(jnp.array([0.5]), jnp.array([[[0.4, 0.2], [0.5, 0.5]]]))
        >>> round(float(augmentation_score(kept, 1.0)[0]), 3)
        0.7
    """
    drops = similarities.original[:, None] - jnp.mean(similarities.views, axis=2)
    return similarities.original + weight * jnp.sum(drops, axis=1)


def view_similarities(
    encode_image: Callable[[jax.Array], jax.Array],
    images: Real[AnyArray, "N H W 3"],
    text_features: Float[AnyArray, "N d"],
    *,
    key: jax.Array,
    transformations: Sequence[Transformation] = TRANSFORMATIONS,
    draws: int = 4,
    example_ids: Int[AnyArray, " N"] | None = None,
    batch_size: int | None = None,
) -> ViewSimilarities:
    """Encode every image and its random views once: the part of the attack that costs.

    Arguments and errors as `augmentation_enhanced_attack`.

    Returns:
        `ViewSimilarities`, for `augmentation_score` with as many weights as are to be tried.

    Example:
        >>> found = view_similarities(lambda x: x.mean((1, 2)), jnp.ones((2, 8, 8, 3)),
        ...     jnp.ones((2, 3)), key=jax.random.key(0), draws=3,
        ...     transformations=[GaussianBlur(3)])
        >>> found.views.shape
        (2, 1, 3)
    """
    check_key(key)
    check_count(draws, "draws")
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    if not transformations:
        raise InputError("transformations are empty: give at least one")
    texts = check_features(text_features, "text_features")
    count = _check_images(images)
    if texts.shape[0] != count:
        raise InputError(f"{count} images and {texts.shape[0]} text_features: one text each")
    ids = np.arange(count) if example_ids is None else example_ids
    if np.shape(ids) != (count,) or not jnp.issubdtype(jnp.asarray(ids).dtype, jnp.integer):
        raise InputError(f"example_ids must be int[{count}], one for each image")
    encode = encode_image if isinstance(encode_image, Partial) else Partial(encode_image)
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    found: Any = jax.eval_shape(encode, one)
    if getattr(found, "shape", None) != (1, texts.shape[1]):
        raise InputError(
            f"encode_image turns [1, H, W, 3] into {getattr(found, 'shape', type(found))} but "
            f"text_features have {texts.shape[1]} columns: [B, {texts.shape[1]}] is needed"
        )
    return _encode_views(
        encode,
        jnp.asarray(images),
        texts,
        key,
        jnp.asarray(ids),
        transformations=tuple(transformations),
        draws=draws,
        batch_size=min(
            batch_size or _default_batch(images.shape[1:], 1 + draws * len(transformations)), count
        ),
    )


def _default_batch(shape: tuple[int, ...], num_views: int) -> int:
    if jax.default_backend() != "cpu":
        return 8
    return max(1, _NUMBERS_AT_ONCE // (num_views * math.prod(shape)))


@functools.partial(jax.jit, static_argnames=("transformations", "draws", "batch_size"))
def _encode_views(
    encode: Partial,
    images: jax.Array,
    texts: jax.Array,
    key: jax.Array,
    ids: jax.Array,
    *,
    transformations: tuple[Transformation, ...],
    draws: int,
    batch_size: int,
) -> ViewSimilarities:
    num_views = 1 + len(transformations) * draws

    def views(image: jax.Array, example: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32) / (255 if image.dtype == jnp.uint8 else 1)
        made = [image[None]]
        for number, transformation in enumerate(transformations):
            example_key = jax.random.fold_in(jax.random.fold_in(key, example), number)
            keys = jax.random.split(example_key, draws)
            made.append(jax.vmap(transformation, in_axes=(0, None))(keys, image))
        return jnp.concatenate(made)

    def of_batch(rows: jax.Array) -> jax.Array:
        made = jax.vmap(views)(images[rows], ids[rows])
        features = encode(made.reshape(-1, *made.shape[2:]))
        return cosine(features.reshape(batch_size, num_views, -1), texts[rows][:, None])

    # every batch has one size, the last one padded by its last row: the encoder compiles once
    count = images.shape[0]
    num_batches = -(-count // batch_size)
    rows = jnp.minimum(jnp.arange(num_batches * batch_size), count - 1)
    found = jax.lax.map(of_batch, rows.reshape(num_batches, batch_size))
    found = found.reshape(-1, num_views)[:count]
    return ViewSimilarities(found[:, 0], found[:, 1:].reshape(count, len(transformations), draws))


def _check_images(images: Any) -> int:
    count = check_examples(images, "images")
    if getattr(images, "ndim", None) != 4 or images.shape[3] != 3:
        raise InputError(f"images have shape {np.shape(images)}: [N, H, W, 3] is needed")
    if isinstance(images, Tracer) or images.dtype == np.uint8:
        return count
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images are {images.dtype}: uint8, or float in [0, 1]")
    check_finite(images, "images", first_row=0)
    if images.min() < 0 or images.max() > 1:
        raise InputError(
            f"images lie in {float(images.min()):g} to {float(images.max()):g}: give float in "
            "[0, 1] without the encoder's normalisation, which belongs in encode_image"
        )
    return count
