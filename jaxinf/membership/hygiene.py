"""Hygiene: which captions and URLs two sets share.

A pair that is in both sets is a member and a non-member at once: drop it from one.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxinf.errors import InputError, require_extra

_DIGITS = re.compile(r"\d+")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Overlap:
    """What two sets share.

    Attributes:
        first_rows: int[P], rows of the first set that are in the second as well, rising.
        second_rows: int[Q], rows of the second set that are in the first as well, rising.
        pairs: int[P, 2], each of `first_rows` with its best match in the second set, the
            earliest of equals.
        num_empty: how many rows of both sets together had nothing to compare, and were left out.
    """

    first_rows: Int[np.ndarray, " P"]
    second_rows: Int[np.ndarray, " Q"]
    pairs: Int[np.ndarray, "P 2"]
    num_empty: int = 0

    def __str__(self) -> str:
        """The counts in words."""
        empty = f"; {self.num_empty} rows had nothing to compare" if self.num_empty else ""
        return (
            f"{len(self.first_rows)} rows of the first set and {len(self.second_rows)} of the "
            f"second are in both{empty}"
        )


def normalise_caption(caption: str) -> str:
    """Strip what does not make two captions different, in the paper's order.

    Lower case; digits out; ASCII punctuation out; stop-words out, by scikit-learn's list of 318
    English ones (the paper's code takes NLTK's 179, which must be downloaded).

    Args:
        caption: any text.

    Returns:
        The words left, a space between them; possibly none.

    Raises:
        InputError: for what is no string.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> normalise_caption("  The 2 Dogs, playing in the park!! ")
        'dogs playing park'
    """
    if not isinstance(caption, str):
        raise InputError(f"a caption is {type(caption).__name__}, not a string")
    stop_words = require_extra("sklearn.feature_extraction.text", "cli").ENGLISH_STOP_WORDS
    text = _DIGITS.sub("", caption.strip().lower()).translate(_NO_PUNCTUATION)
    return " ".join(word for word in text.split() if word not in stop_words)


def caption_overlap(first: Sequence[str], second: Sequence[str]) -> Overlap:
    """Which captions occur in both sets once normalised.

    Captions of which nothing is left, such as "2021", are left out: they all look alike.

    Args:
        first: captions of one set.
        second: captions of the other.

    Returns:
        `Overlap`.

    Raises:
        InputError: as `normalise_caption`.

    Example:
        >>> found = caption_overlap(["a dog", "cats", "7"], ["Dogs", "The dog!"])
        >>> found.pairs.tolist(), found.num_empty
        ([[0, 1]], 1)
    """
    return _exact_overlap(first, second, normalise_caption)


def url_overlap(first: Sequence[str], second: Sequence[str]) -> Overlap:
    """Which URLs occur in both sets, compared as they are but for blanks around them.

    Args:
        first: URLs of one set; empty ones are left out.
        second: URLs of the other.

    Returns:
        `Overlap`.

    Raises:
        InputError: for what is no string.

    Example:
        >>> print(url_overlap(["http://a/1", "http://a/2"], ["http://a/2 ", ""]))
        1 rows of the first set and 1 of the second are in both; 1 rows had nothing to compare
    """

    def strip(url: str) -> str:
        if not isinstance(url, str):
            raise InputError(f"a URL is {type(url).__name__}, not a string")
        return url.strip()

    return _exact_overlap(first, second, strip)


def _exact_overlap(
    first: Sequence[str], second: Sequence[str], normalise: Callable[[str], str]
) -> Overlap:
    sides = [[normalise(text) for text in side] for side in (first, second)]
    # the earliest row of each text, so later ones must not overwrite it
    where = {text: row for row, text in reversed(list(enumerate(sides[1]))) if text}
    known = set(filter(None, sides[0]))
    pairs = [(row, where[text]) for row, text in enumerate(sides[0]) if text in where]
    rows = [row for row, text in enumerate(sides[1]) if text in known]
    matched = np.asarray(pairs, int).reshape(-1, 2)
    empty = sum(not text for side in sides for text in side)
    return Overlap(matched[:, 0], np.asarray(rows, int), matched, empty)
