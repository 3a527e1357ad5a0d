"""Tokens that begin and end a text, and tokenizers that are another model's."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers

from jaxinf.applications.language import encode_answers, encode_texts
from jaxinf.errors import InputError
from jaxinf.models.language import (
    TextTokenizer,
    check_tokenizer,
    load_causal_lm,
    load_tokenizer,
    train_bpe,
)

FIXTURES = Path(__file__).parent / "fixtures"


def by_words(*words):
    """A tokenizer of whole words, numbered as they are given."""
    vocabulary = {word: number for number, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=words[0]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return inner


LLAMA = ("<unk>", "<s>", "</s>", "Rome", "is", "here")


@pytest.mark.parametrize(
    ("kind", "given", "begin", "end"),
    [
        ("llama", {"bos_token_id": 1, "eos_token_id": 2}, 1, 2),
        ("llama", {"bos_token_id": 1, "eos_token_id": [2, 3]}, 1, 2),
        ("llama", {"bos_token_id": None, "eos_token_id": 2}, 2, 2),
        ("llama", {"bos_token_id": 1, "eos_token_id": None}, 1, None),
        ("gpt2", {}, 0, 0),
        ("gpt2", {"bos_token_id": None, "eos_token_id": None}, None, None),
    ],
)
def test_the_config_says_how_texts_begin_and_end(tmp_path, kind, given, begin, end):
    settings = json.loads((FIXTURES / kind / "config.json").read_text()) | given
    (tmp_path / "config.json").write_text(json.dumps(settings))
    shutil.copy(FIXTURES / kind / "model.safetensors", tmp_path)
    model = load_causal_lm(tmp_path)
    assert (model.begin, model.end) == (begin, end)


def test_rows_of_a_llama_begin_with_its_own_token():
    tokenizer = TextTokenizer(by_words(*LLAMA), end=2, begin=1)
    batch = encode_texts(["Rome is here", "Rome"], tokenizer, context=8, spans=[(5, 7), (0, 4)])
    assert batch["tokens"].tolist() == [[1, 3, 4, 5, 2], [1, 3, 2, 0, 0]]
    assert batch["mask"].astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    batch = encode_answers(["Rome is"], ["here"], tokenizer, context=8)
    assert batch["tokens"].tolist() == [[1, 3, 4, 5]]
    assert batch["mask"].astype(int).tolist() == [[0, 0, 0, 1]]


def test_a_text_may_begin_by_a_token_and_end_by_none():
    tokenizer = TextTokenizer(by_words(*LLAMA), end=None, begin=1)
    assert encode_texts(["Rome is"], tokenizer, context=8)["tokens"].tolist() == [[1, 3, 4]]
    bare = TextTokenizer(by_words(*LLAMA), end=None)
    assert encode_texts(["Rome is"], bare, context=8)["tokens"].tolist() == [[3, 4]]


def test_rows_of_gpt2_stand_between_ends_of_text():
    tokenizer = train_bpe(["Rome is here"], 260)
    assert tokenizer.begin == tokenizer.end
    (ids,) = tokenizer.encode(["Rome is"])
    batch = encode_texts(["Rome is"], tokenizer, context=16)
    assert batch["tokens"].tolist() == [[tokenizer.end, *ids, tokenizer.end]]
    batch = encode_answers(["Rome"], ["is"], tokenizer, context=16)
    assert batch["tokens"].tolist() == [[tokenizer.end, *ids]]


@pytest.mark.parametrize(
    ("words", "given", "begin", "end"),
    [
        (LLAMA, {}, 1, 2),
        (LLAMA, {"end": 2}, 1, 2),
        (LLAMA, {"end": 2, "begin": 2}, 2, 2),
        (LLAMA, {"end": 3}, 3, 3),
        (("a", "</s>"), {}, 1, 1),
        (("a", "<|begin_of_text|>", "<|eot_id|>"), {"end": 2}, 1, 2),
        (("a", "<|endoftext|>", "<s>"), {}, 1, 1),
        (("a", "b"), {}, None, None),
    ],
)
def test_tokens_go_in_pairs_where_nothing_is_said(tmp_path, words, given, begin, end):
    by_words(*words).save(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(tmp_path, **given)
    assert (found.begin, found.end) == (begin, end)


@pytest.mark.parametrize("name", ["end", "begin"])
@pytest.mark.parametrize("token", [50256, -1, 1 << 40, "</s>", True])
def test_a_token_that_the_tokenizer_lacks_is_refused(tmp_path, name, token):
    train_bpe(["Rome is here"], 260).save(tmp_path)
    with pytest.raises(InputError, match=f"{name} is .*, which is no token of this tokenizer"):
        load_tokenizer(tmp_path, **{"end": 0, name: token})


def test_the_published_sizes_fit():
    gpt2 = by_words(*(f"w{i}" for i in range(50256)), "<|endoftext|>")
    check_tokenizer(TextTokenizer(gpt2, 50256), 50257)
    # Pythia has more rows of embeddings than its tokenizer has tokens
    pythia = by_words("<|endoftext|>", *(f"w{i}" for i in range(1, 50277)))
    check_tokenizer(TextTokenizer(pythia, 0, 0), 50304)
    with pytest.raises(InputError, match="do not belong together"):
        check_tokenizer(TextTokenizer(pythia, 0), 50257)
