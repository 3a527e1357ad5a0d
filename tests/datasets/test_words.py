import numpy as np
import pytest

from jaxinf.datasets.words import PADDING, UNKNOWN, Words, common_words
from jaxinf.errors import InputError


def test_rows_begin_end_and_are_padded():
    words = Words(("red", "dog"), context_length=5)
    tokens = words(["Red dog", "a DOG, a dog: a dog!"])
    start, end = words.vocab_size - 2, words.vocab_size - 1
    np.testing.assert_array_equal(tokens[0], [start, 2, 3, end, PADDING])
    # cut, and still ended; the end token is the largest id
    np.testing.assert_array_equal(tokens[1], [start, UNKNOWN, 3, UNKNOWN, end])
    assert tokens.dtype == np.int32
    assert tokens.max() == end


def test_common_words_are_counted():
    words = common_words(["b a", "a c", "a b"], 4)
    assert words.words == ("a", "b", "c")
    assert common_words(["b a", "a c", "a b"], 4, min_count=3).words == ("a",)


def test_what_cannot_be_tokenized_is_refused():
    words = Words(("red",), context_length=4)
    with pytest.raises(InputError, match=r"captions\[1\] is '!!'"):
        words(["red", "!!"])
    with pytest.raises(InputError, match=r"captions\[0\] is 3"):
        words([3])
    with pytest.raises(InputError, match="hold one twice"):
        Words(("a", "a"), 4)
    with pytest.raises(InputError, match="empty"):
        common_words(["red dog"], 4, min_count=2)
    with pytest.raises(InputError, match="context_length is 2"):
        Words(("a",), 2)
