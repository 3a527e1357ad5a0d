import numpy as np
import pytest

from jaxinf.datasets.digits import load_digits
from jaxinf.datasets.scenes import digit_scenes, scene_words
from jaxinf.datasets.words import UNKNOWN, split_words
from jaxinf.errors import InputError


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes(600, seed=3)


def test_the_same_seed_gives_the_same_pairs_and_another_others(scenes):
    again = digit_scenes(600, seed=3)
    np.testing.assert_array_equal(again.images, scenes.images)
    assert again.captions == scenes.captions
    assert digit_scenes(600, seed=4).captions != scenes.captions


def test_captions_say_what_is_shown(scenes):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    words = [split_words(caption) for caption in scenes.captions]
    assert [names.index(each[2]) for each in words] == scenes.digits.tolist()
    assert all(each[1] != each[4] for each in words)
    # a red digit is redder than a blue one, wherever it is
    top = {colour: [] for colour in ("red", "blue")}
    for image, each in zip(scenes.images.astype(float), words, strict=True):
        if each[1] in top and each[4] == "grey":
            top[each[1]].append((image[..., 0] - image[..., 2]).max())
    assert min(len(side) for side in top.values()) > 3
    assert np.mean(top["red"]) > np.mean(top["blue"]) + 50


def test_images_hold_a_digit_of_the_pool(scenes):
    train, test = load_digits()
    ink = np.concatenate([train["x"], test["x"]]).sum(axis=(1, 2, 3)).mean()
    flat = digit_scenes(1, seed=3, size=16)
    assert flat.images.shape == (1, 16, 16, 3)
    assert ink > 10
    assert scenes.images.std(axis=(1, 2)).max() > 20


def test_every_word_is_in_the_vocabulary(scenes):
    words = scene_words()
    tokens = words(scenes.captions)
    assert tokens.shape == (600, words.context_length)
    assert not (tokens == UNKNOWN).any()
    assert tokens.max() == words.vocab_size - 1
    assert (tokens.argmax(axis=1) == 7).all()


def test_the_odd_word_says_nothing_of_the_image(scenes):
    tags = [caption.split()[-1] for caption in scenes.captions]
    assert len(set(tags)) > 80
    common = max(set(tags), key=tags.count)
    shown = scenes.digits[np.array(tags) == common]
    assert len(set(shown.tolist())) > 3


def test_the_shifted_kind_has_the_opposite_odds(scenes):
    other = digit_scenes(600, seed=5, shifted=True)
    assert (scenes.digits <= 4).mean() > 0.6
    assert (other.digits <= 4).mean() < 0.4


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"count": 0}, "count is 0"), ({"count": 1, "size": 15}, "size is 15: at least 16")],
)
def test_impossible_draws_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        digit_scenes(**options, seed=0)
