import jax
import numpy as np
import optax
import pytest

from jaxinf.datasets.scenes import digit_scenes, scene_words
from jaxinf.errors import InputError
from jaxinf.models.clip import (
    CLIP,
    CLIPConfig,
    Preprocess,
    ResNetConfig,
    TextConfig,
    TransformerConfig,
    VisionTransformerConfig,
)
from jaxinf.models.clip_train import ContrastiveLoss, train_clip, untrained_clip

WORDS = scene_words()
STACK = TransformerConfig(width=16, layers=1, heads=2, mlp_width=16, activation="quick_gelu")
TEXT = TextConfig(context_length=8, vocab_size=WORDS.vocab_size, transformer=STACK)
CONFIG = CLIPConfig(
    embed_dim=16,
    vision=VisionTransformerConfig(image_size=16, patch_size=8, transformer=STACK),
    text=TEXT,
)
PREPROCESS = Preprocess(size=16, resize_to=16)


@pytest.fixture(scope="module")
def pairs():
    scenes = digit_scenes(48, seed=0, size=16)
    return scenes.images, WORDS(scenes.captions)


def train(pairs, **options):
    options = {"key": jax.random.key(0), "num_epochs": 60, "batch_size": 24} | options
    return train_clip(CONFIG, *pairs, learning_rate=5e-3, **options)


@pytest.fixture(scope="module")
def trained(pairs):
    return train(pairs)


def features(model, pairs):
    images, tokens = pairs
    image, text = model.encode_image(PREPROCESS.normalise(images)), model.encode_text(tokens)
    return np.asarray(image), np.asarray(text)


def test_pairs_trained_on_find_each_other(trained, untrained, pairs):
    assert trained.losses.shape == (60,)
    assert trained.losses[-1] < trained.losses[0] / 2
    image, text = features(trained.model, pairs)
    found = (image @ text.T).argmax(axis=1) == np.arange(48)
    assert found.mean() > 0.5
    blind = features(untrained, pairs)
    assert ((blind[0] @ blind[1].T).argmax(axis=1) == np.arange(48)).mean() < 0.2


def test_the_same_key_gives_the_same_weights(pairs):
    again, longer = train(pairs, num_epochs=2), train(pairs, num_epochs=2)
    np.testing.assert_array_equal(again.losses, longer.losses)
    jax.tree.map(np.testing.assert_array_equal, again.model.variables, longer.model.variables)


@pytest.fixture(scope="module")
def untrained():
    return untrained_clip(CONFIG, key=jax.random.key(2))


@pytest.fixture(scope="module")
def loss_at(untrained, pairs):
    """Losses of six pairs at a scale of the logits, by one compiled function."""
    loss = jax.jit(ContrastiveLoss(untrained.module, PREPROCESS), static_argnames="train")

    def at(scale):
        params = {**untrained.variables["params"], "logit_scale": np.float32(np.log(scale))}
        batch = {"images": pairs[0][:6], "tokens": pairs[1][:6]}
        return loss(params, {}, batch, train=True)

    return at


def test_the_loss_is_the_symmetric_cross_entropy(loss_at, untrained, pairs):
    losses, state = loss_at(10.0)
    image, text = features(untrained, pairs)
    logits = 10.0 * image[:6] @ text[:6].T
    each = [np.log(np.exp(t).sum(axis=1)) - np.diag(t) for t in (logits, logits.T)]
    np.testing.assert_allclose(losses, np.mean(each, axis=0), rtol=1e-4)
    assert state == {}


def test_the_scale_of_the_logits_is_bounded(loss_at):
    np.testing.assert_allclose(loss_at(100.0)[0], loss_at(1e4)[0], rtol=1e-4)
    assert np.abs(loss_at(10.0)[0] - loss_at(100.0)[0]).max() > 0.01


def test_batch_statistics_move_in_training_alone(pairs):
    vision = ResNetConfig(image_size=32, blocks=(1, 1, 1, 1), width=4, heads=2)
    module = CLIP(CLIPConfig(embed_dim=16, vision=vision, text=TEXT))
    batch = {
        "images": jax.ShapeDtypeStruct((4, 32, 32, 3), np.uint8),
        "tokens": jax.ShapeDtypeStruct((4, 8), np.int32),
    }
    floats = jax.ShapeDtypeStruct((4, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), floats, batch["tokens"])
    params = shapes.pop("params")
    loss = ContrastiveLoss(module, Preprocess(size=32, resize_to=32))
    losses, state = jax.eval_shape(lambda *args: loss(*args, train=True), params, shapes, batch)
    assert losses.shape == (4,)
    assert jax.tree.structure(state) == jax.tree.structure(shapes)


def test_another_optimiser_is_taken(pairs):
    frozen = train(pairs, num_epochs=1, optimizer=optax.sgd(0.0))
    start = untrained_clip(CONFIG, key=jax.random.split(jax.random.key(0))[0])
    jax.tree.map(np.testing.assert_array_equal, frozen.model.variables, start.variables)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": np.zeros((4, 8, 8, 3), np.uint8)}, r"uint8\[N, 16, 16, 3\] is needed"),
        ({"images": np.zeros((4, 16, 16, 3), np.float32)}, "images are float32"),
        ({"tokens": np.zeros((4, 9), int)}, "T at most 8"),
        ({"tokens": np.zeros((4, 8), np.float32)}, r"tokens are float32\[4, 8\]"),
        ({"tokens": np.full((4, 8), 999)}, "tokens lie in 999 to 999"),
        ({"tokens": np.zeros((3, 8), int)}, "unequal leading axes"),
        ({"batch_size": 1}, "a pair alone"),
        ({"batch_size": 5}, "batch_size is 5 but there are 4"),
        ({"key": 0}, "key is int"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(change, reason):
    good = {"images": np.zeros((4, 16, 16, 3), np.uint8), "tokens": np.zeros((4, 8), int)}
    options = {**good, "key": jax.random.key(0), "num_epochs": 1, "batch_size": 2} | change
    with pytest.raises(InputError, match=reason):
        train_clip(CONFIG, **options)
