"""Digits in coloured scenes with captions: image-text pairs without a download.

Every pair is drawn by itself from one distribution, so any split of one draw is exactly
independent and identically distributed: what a split by date or by source never is.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32, UInt8

from jaxinf.datasets.digits import load_digits
from jaxinf.datasets.words import Words
from jaxinf.errors import InputError

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLOURS = {
    "red": (200, 50, 45),
    "orange": (230, 140, 40),
    "yellow": (235, 215, 70),
    "green": (60, 150, 70),
    "cyan": (80, 190, 200),
    "blue": (50, 80, 190),
    "purple": (130, 60, 160),
    "grey": (130, 130, 130),
}
# words of no meaning, drawn without a look at the image: who knows which one goes with which
# image has learnt it by heart
_TAGS = tuple(
    "".join(parts) for parts in itertools.product("bdfglmnr", "aiou", ("ka", "le", "mi", "so"))
)
# how much more often the first of a list is drawn than the last
_SKEW = 8.0
_CONTEXT_LENGTH = 8


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with their captions.

    Attributes:
        images: uint8[N, S, S, 3].
        captions: N texts, such as "a red three on blue baka".
        digits: int32[N], which digit is shown.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    captions: tuple[str, ...]
    digits: Int32[np.ndarray, " N"]


def digit_scenes(count: int, *, seed: int, size: int = 32, shifted: bool = False) -> Scenes:
    """Draw pairs: a handwritten digit in one colour on another, captioned, with one odd word.

    The digit, its colour, the background and the odd word are drawn by unequal odds. Pairs of the
    shifted kind are made alike, but by the opposite odds: what is common here is rare there. A
    model that was trained on one kind fits the other less well, member or not.

    Args:
        count: N, at least 1.
        seed: the draw; another seed gives other pairs.
        size: S, at least 16 pixels.
        shifted: draw by the opposite odds.

    Returns:
        `Scenes`.

    Raises:
        InputError: for a count or a size out of range.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> scenes = digit_scenes(4, seed=0)
        >>> scenes.images.shape, scenes.captions[0]
        ((4, 32, 32, 3), 'a cyan three on purple mile')
    """
    if count < 1:
        raise InputError(f"count is {count}: at least 1")
    if size < 16:
        raise InputError(f"size is {size}: at least 16 pixels, twice a digit's")
    rng = np.random.default_rng(seed)
    train, test = load_digits()
    strokes = np.concatenate([train["x"], test["x"]])[..., 0]
    shows = np.concatenate([train["y"], test["y"]])
    digits = _draw(rng, len(_NUMBERS), count, shifted).astype(np.int32)
    ink = _draw(rng, len(_COLOURS), count, shifted)
    # never the ink's own colour, else the digit would not be seen
    ground = (ink + 1 + _draw(rng, len(_COLOURS) - 1, count, shifted)) % len(_COLOURS)
    tags = _draw(rng, len(_TAGS), count, shifted)
    # handwritten digits in the order of what they show, so that one of the right kind is drawn
    order = np.argsort(shows, kind="stable")
    starts = np.searchsorted(shows[order], np.arange(len(_NUMBERS) + 1))
    rows = order[rng.integers(starts[digits], starts[digits + 1])]
    names = list(_COLOURS)
    captions = tuple(
        f"a {names[i]} {_NUMBERS[d]} on {names[g]} {_TAGS[t]}"
        for i, d, g, t in zip(ink, digits, ground, tags, strict=True)
    )
    images = _paint(rng, strokes[rows], ink, ground, size)
    return Scenes(images, captions, digits)


def scene_words() -> Words:
    """The vocabulary of `digit_scenes`.

    Example:
        >>> scene_words()(["a red zero on orange dika"]).shape
        (1, 8)
    """
    return Words(("a", "on", *_NUMBERS, *_COLOURS, *_TAGS), _CONTEXT_LENGTH)


def _draw(rng: np.random.Generator, kinds: int, count: int, shifted: bool) -> np.ndarray:
    odds = np.geomspace(_SKEW, 1, kinds)
    return rng.choice(kinds, count, p=(odds[::-1] if shifted else odds) / odds.sum())


def _paint(
    rng: np.random.Generator,
    strokes: Float[np.ndarray, "N 8 8"],
    ink: np.ndarray,
    ground: np.ndarray,
    size: int,
) -> UInt8[np.ndarray, "N S S 3"]:
    """A shaded background, and the digit at twice its size somewhere on it."""
    count, palette = len(ink), np.asarray(list(_COLOURS.values()), np.float64)
    large = strokes.repeat(2, axis=1).repeat(2, axis=2)
    side = large.shape[1]
    mask = np.zeros((count, size, size))
    top, left = rng.integers(0, size - side + 1, (2, count))
    rows = top[:, None, None] + np.arange(side)[:, None]
    columns = left[:, None, None] + np.arange(side)
    mask[np.arange(count)[:, None, None], rows, columns] = large
    # light falls from a random side
    slope = rng.uniform(-30, 30, (2, count, 1, 1))
    at = np.linspace(-1, 1, size)
    shade = slope[0] * at[:, None] + slope[1] * at
    jitter = rng.normal(0, 12, (2, count, 1, 1, 3))
    below = palette[ground][:, None, None] + jitter[0] + shade[..., None]
    above = palette[ink][:, None, None] + jitter[1]
    mixed = below + mask[..., None] * (above - below)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
