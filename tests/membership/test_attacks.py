import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.membership import augmentation_enhanced as module
from jaxinf.membership import (
    augmentation_enhanced_attack,
    augmentation_score,
    cosine_similarity_attack,
    population_ratio,
    reference_difference,
    view_similarities,
)
from jaxinf.membership.augmentations import ColorJitter, RandomHorizontalFlip, RandomResizedCrop

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(7, 6, 6, 3)).astype(np.uint8)
WEIGHTS = RNG.normal(size=(108, 5)).astype(np.float32)
TEXTS = RNG.normal(size=(7, 5)).astype(np.float32)
VIEWS = (RandomResizedCrop(), ColorJitter(hue=0.3))
ENCODE = Partial(lambda weights, x: x.reshape(x.shape[0], -1) @ weights, WEIGHTS)


def similarity(a, b):
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def attack(**options):
    options = {"key": jax.random.key(0), "transformations": VIEWS, "draws": 3} | options
    return augmentation_enhanced_attack(ENCODE, IMAGES, TEXTS, **options)


@pytest.fixture(scope="module")
def kept():
    return view_similarities(
        ENCODE, IMAGES, TEXTS, key=jax.random.key(0), transformations=VIEWS, draws=3
    )


def test_cosine():
    image = 3 * WEIGHTS[:7]
    expected = similarity(image, TEXTS)
    np.testing.assert_allclose(cosine_similarity_attack(image, TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(cosine_similarity_attack)(image, TEXTS), expected, atol=1e-6)
    half = jnp.asarray(image, jnp.bfloat16)
    got = cosine_similarity_attack(half, TEXTS)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_views_are_those_that_each_transformation_makes(kept):
    images = IMAGES.astype(np.float32) / 255
    np.testing.assert_allclose(kept.original, similarity(ENCODE(images), TEXTS), atol=1e-5)
    assert kept.views.shape == (7, 2, 3)
    # example 4, transformation 1, draw 2 by hand
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 4), 1)
    view = VIEWS[1](jax.random.split(key, 3)[2], jnp.asarray(images[4]))
    expected = similarity(ENCODE(view[None])[0], TEXTS[4])
    assert float(kept.views[4, 1, 2]) == pytest.approx(float(expected), abs=1e-5)


def test_score_adds_the_weighted_drops_over_the_transformations(kept):
    views = np.asarray(kept.views)
    for weight in (0.0, 0.3, -1.0):
        drops = sum(np.asarray(kept.original) - views[:, k].mean(axis=1) for k in range(2))
        expected = np.asarray(kept.original) + weight * drops
        np.testing.assert_allclose(augmentation_score(kept, weight), expected, atol=1e-6)
        np.testing.assert_allclose(attack(weight=weight), expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_change_nothing(batch_size, kept):
    scores = attack(batch_size=batch_size)
    np.testing.assert_allclose(scores, augmentation_score(kept, 0.3), atol=2e-6)


def test_a_cpu_encodes_as_many_views_together_as_its_caches_hold(monkeypatch):
    assert module._default_batch((224, 224, 3), 25) == 1
    assert module._default_batch((32, 32, 3), 25) == 54
    assert module._default_batch((336, 336, 3), 25) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert module._default_batch((224, 224, 3), 25) == 8


def test_an_example_keeps_its_views_in_any_company(kept):
    chosen = np.array([5, 2])
    part = view_similarities(
        ENCODE,
        IMAGES[chosen],
        TEXTS[chosen],
        key=jax.random.key(0),
        transformations=VIEWS,
        draws=3,
        example_ids=chosen,
    )
    np.testing.assert_allclose(part.views, np.asarray(kept.views)[chosen], atol=2e-6)


def test_keys_examples_and_draws_differ(kept):
    other = view_similarities(
        ENCODE, IMAGES, TEXTS, key=jax.random.key(1), transformations=VIEWS, draws=3
    )
    assert not np.allclose(other.views, kept.views, atol=1e-3)
    assert np.ptp(np.asarray(kept.views), axis=2).min() > 1e-4
    same = view_similarities(
        ENCODE, IMAGES[[0, 0]], TEXTS[[0, 0]], key=jax.random.key(0), transformations=VIEWS, draws=3
    )
    assert not np.allclose(same.views[0], same.views[1], atol=1e-3)


def test_float_images_and_plain_functions():
    images = IMAGES.astype(np.float32) / 255
    options = {"key": jax.random.key(0), "transformations": VIEWS, "draws": 3}
    got = augmentation_enhanced_attack(lambda x: ENCODE(x), images, TEXTS, **options)
    np.testing.assert_allclose(got, attack(), atol=2e-6)


def test_an_encoder_that_does_not_mind_flips_gains_nothing():
    symmetric = lambda x: x.mean(axis=(1, 2))
    texts = TEXTS[:, :3]
    scores = augmentation_enhanced_attack(
        symmetric,
        IMAGES,
        texts,
        key=jax.random.key(0),
        transformations=[RandomHorizontalFlip(1.0)],
        weight=5.0,
    )
    images = IMAGES.astype(np.float32) / 255
    expected = cosine_similarity_attack(images.mean(axis=(1, 2)), texts)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_reference_difference():
    own, one, two = (np.float32(row) for row in ([0.5, 0.1], [0.3, 0.1], [0.1, 0.3]))
    np.testing.assert_allclose(reference_difference(own, one), [0.2, 0], atol=1e-6)
    several = reference_difference(own, np.stack([one, two]))
    np.testing.assert_allclose(several, [0.3, -0.1], atol=1e-6)


def test_population_ratio_is_the_share_of_ratios_of_at_least_gamma():
    own, others = (RNG.normal(0.3, 0.02, n).astype(np.float32) for n in (20, 30))
    refs, other_refs = (RNG.normal(0.3, 0.02, (2, n)).astype(np.float32) for n in (20, 30))
    like = np.exp(100.0 * own) / np.exp(100.0 * refs.astype(float)).mean(axis=0)
    other = np.exp(100.0 * others) / np.exp(100.0 * other_refs.astype(float)).mean(axis=0)
    for gamma in (1.0, 2.0):
        expected = (like[:, None] / other[None, :] >= gamma).mean(axis=1)
        got = population_ratio(own, refs, others, other_refs, gamma=gamma)
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert len(set(expected)) > 5


NAN = np.full((7, 5), np.nan, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine_similarity_attack(TEXTS, TEXTS[:3]), r"\[7, 5\] and text_features \[3, 5"),
        (lambda: cosine_similarity_attack(TEXTS, TEXTS[:, :4]), "of one width"),
        (lambda: cosine_similarity_attack(TEXTS[0], TEXTS), "one row per example"),
        (lambda: cosine_similarity_attack(NAN, TEXTS), "first in example 0"),
        (lambda: cosine_similarity_attack(0 * TEXTS, TEXTS), "all zeros, which has no direction"),
        (lambda: attack(key=0), "key is int"),
        (lambda: attack(draws=0), "draws is 0"),
        (lambda: attack(batch_size=0), "batch_size is 0"),
        (lambda: attack(transformations=()), "transformations are empty"),
        (lambda: attack(weight=np.nan), "weight is nan"),
        (lambda: attack(example_ids=np.arange(3)), r"int\[7\]"),
        (
            lambda: augmentation_enhanced_attack(
                ENCODE, IMAGES / np.float32(1), TEXTS, key=jax.random.key(0)
            ),
            r"give float in \[0, 1\]",
        ),
        (
            lambda: augmentation_enhanced_attack(
                ENCODE, IMAGES[..., :1], TEXTS, key=jax.random.key(0)
            ),
            r"\[N, H, W, 3\] is needed",
        ),
        (
            lambda: augmentation_enhanced_attack(
                ENCODE, IMAGES.astype(np.int32), TEXTS, key=jax.random.key(0)
            ),
            "images are int32",
        ),
        (
            lambda: augmentation_enhanced_attack(ENCODE, IMAGES, TEXTS[:3], key=jax.random.key(0)),
            "7 images and 3 text_features",
        ),
        (
            lambda: augmentation_enhanced_attack(
                ENCODE, IMAGES, TEXTS[:, :4], key=jax.random.key(0)
            ),
            r"\(1, 5\) but text_features have 4 columns",
        ),
        (lambda: reference_difference(TEXTS[0], TEXTS[1][:3]), "5 and 3 entries"),
        (lambda: reference_difference(TEXTS[0], NAN[0]), "NaN"),
        (lambda: reference_difference(TEXTS[0], TEXTS[None]), r"\[R, N\]"),
        (lambda: population_ratio(*TEXTS[:4], gamma=0.5), "gamma is 0.5"),
        (lambda: population_ratio(*TEXTS[:4], logit_scale=0), "logit_scale is 0"),
        (
            lambda: population_ratio(TEXTS[0], TEXTS[:2], TEXTS[2], TEXTS[3]),
            "2 references for the pairs and 1",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
