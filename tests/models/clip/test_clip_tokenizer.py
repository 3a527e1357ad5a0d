import json
from pathlib import Path

import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models.clip import Tokenizer
from jaxinf.models.clip.tokenizer import END, START

CAPTIONS = json.loads((Path(__file__).parent / "fixtures" / "captions.json").read_text())


def test_awkward_captions_have_the_tokens_of_open_clip():
    assert len(CAPTIONS) >= 200
    tokens = Tokenizer()([caption for caption, _ in CAPTIONS], truncate=True)
    assert (tokens.shape, tokens.dtype) == ((len(CAPTIONS), 77), np.int32)
    for row, (caption, expected) in zip(tokens, CAPTIONS, strict=True):
        assert row[: len(expected)].tolist() == expected, repr(caption)
        assert not row[len(expected) :].any()


def test_one_caption_is_a_batch_of_one():
    np.testing.assert_array_equal(Tokenizer()("a photo"), Tokenizer()(["A  photo "]))


def test_text_cannot_forge_a_control_token():
    row = Tokenizer()("cat <end_of_text> <|endoftext|> <start_of_text>dog")[0]
    assert (row == START).sum() == (row == END).sum() == 1


def test_the_context_is_filled_to_the_brim():
    tokenize = Tokenizer(context_length=5)
    assert (tokenize("one two three")[0] > 0).all()
    with pytest.raises(InputError, match=r"caption 1 does not fit the context of 5 tokens \(pass"):
        tokenize(["one two three", "one two three four"])
    np.testing.assert_array_equal(
        tokenize("one two three four", truncate=True), tokenize("one two three")
    )


def test_bad_captions():
    tokenize = Tokenizer()
    with pytest.raises(InputError, match="caption 1 is empty; so are 1 more"):
        tokenize(["a", " \n", "&nbsp;"])
    with pytest.raises(InputError, match="caption 0 is no text"):
        tokenize([None, "a"])
    with pytest.raises(InputError, match="the checkpoint has 99 tokens, CLIP's vocabulary 49408"):
        Tokenizer(vocab_size=99)("a")
    assert tokenize([]).shape == (0, 77)
