"""A vocabulary of whole words, for captions that are few and plain."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

from jaxinf.errors import InputError

PADDING, UNKNOWN = 0, 1
_WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True)
class Words:
    """Captions to tokens, as CLIP's text tower wants them: start, words, end, padding.

    The end token has the largest id, so that a `TextConfig` needs no `end_token`.

    Attributes:
        words: the words known; any other becomes the token 1. Case and punctuation do not count.
        context_length: T, tokens per row; what does not fit is cut.
        vocab_size: how many tokens there are, the four special ones included.

    Raises:
        InputError: for no words, a word met twice, or fewer than 3 tokens per row.

    Example:
        >>> words = Words(("red", "three"), context_length=6)
        >>> words(["A red three!"]), words.vocab_size
        (array([[4, 1, 2, 3, 5, 0]], dtype=int32), 6)
    """

    words: tuple[str, ...]
    context_length: int
    vocab_size: int = field(init=False)

    def __post_init__(self):
        if not self.words or len(set(self.words)) < len(self.words):
            raise InputError("words are empty or hold one twice: give each word once")
        if self.context_length < 3:
            raise InputError(f"context_length is {self.context_length}: at least 3")
        object.__setattr__(self, "vocab_size", len(self.words) + 4)

    def __call__(self, captions: Sequence[str]) -> Int32[np.ndarray, "N T"]:
        """Tokens int32[N, T].

        Raises:
            InputError: for a caption that is no string, or without a word.
        """
        number = {word: index for index, word in enumerate(self.words, start=UNKNOWN + 1)}
        start, end = self.vocab_size - 2, self.vocab_size - 1
        tokens = np.full((len(captions), self.context_length), PADDING, np.int32)
        for row, (into, caption) in enumerate(zip(tokens, captions, strict=True)):
            found = split_words(caption) if isinstance(caption, str) else []
            if not found:
                raise InputError(f"captions[{row}] is {caption!r}: text with a word is needed")
            ids = [number.get(word, UNKNOWN) for word in found[: self.context_length - 2]]
            into[: len(ids) + 2] = [start, *ids, end]
        return tokens


def split_words(caption: str) -> list[str]:
    """Words of a caption, in lower case.

    Example:
        >>> split_words("Red 3, on blue")
        ['red', '3', 'on', 'blue']
    """
    return _WORD.findall(caption.lower())


def common_words(captions: Iterable[str], context_length: int, *, min_count: int = 1) -> Words:
    """The vocabulary of some captions.

    Args:
        captions: texts.
        context_length: T of the vocabulary.
        min_count: fewest occurrences of a word that is kept.

    Returns:
        `Words`, the most frequent word first, equally frequent ones in alphabetical order.

    Raises:
        InputError: no word occurs often enough.

    Example:
        >>> common_words(["a red cat", "A dog"], 8, min_count=2).words
        ('a',)
    """
    counts = Counter(word for caption in captions for word in split_words(caption))
    kept = [word for word, count in counts.items() if count >= min_count]
    return Words(tuple(sorted(kept, key=lambda word: (-counts[word], word))), context_length)
