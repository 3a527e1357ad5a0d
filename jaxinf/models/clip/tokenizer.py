"""CLIP's byte-pair tokenizer: Hugging Face's `tokenizers` with the vocabulary of the release."""

import functools
import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxinf.errors import InputError, require_extra

VOCAB_SIZE = 49408
START, END = VOCAB_SIZE - 2, VOCAB_SIZE - 1

# words, single digits, runs of anything else; contractions first
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+)"


@dataclass(frozen=True)
class Tokenizer:
    """Captions to tokens, between a start and an end token, padded with zeros.

    A caption is mended by ftfy, its HTML entities are resolved twice, runs of whitespace become
    one space, and letters small. Text that spells a control token is text like any other.

    Attributes:
        context_length: tokens per row.
        vocab_size: of the checkpoint; only CLIP's own vocabulary is known here.

    Reference: openai/CLIP, `clip/simple_tokenizer.py`.

    Example:
        >>> Tokenizer(context_length=6)(["A photo", "caf&eacute;"])
        array([[49406,   320,  1125, 49407,     0,     0],
               [49406, 15304, 49407,     0,     0,     0]], dtype=int32)
    """

    context_length: int = 77
    vocab_size: int = VOCAB_SIZE

    def __call__(
        self, captions: str | Sequence[str], *, truncate: bool = False
    ) -> Int32[np.ndarray, "N T"]:
        """Tokens int32[N, context_length].

        Args:
            captions: one caption, or N of them.
            truncate: cut what does not fit; the last token is then the end token.

        Raises:
            InputError: for a caption that is no text, is empty, or does not fit (names the first
                row, and counts the others), or a checkpoint with another vocabulary.
            MissingExtraError: `tokenizers` or `ftfy` is not installed.
        """
        if self.vocab_size != VOCAB_SIZE:
            raise InputError(
                f"the checkpoint has {self.vocab_size} tokens, CLIP's vocabulary {VOCAB_SIZE}: "
                "tokenize with its own tokenizer"
            )
        captions = [captions] if isinstance(captions, str) else list(captions)
        _refuse(captions, lambda caption: not isinstance(caption, str), "is no text")
        cleaned = [clean(caption) for caption in captions]
        _refuse(cleaned, lambda caption: not caption, "is empty")
        rows = [encoding.ids for encoding in _byte_pairs().encode_batch(cleaned)]
        room = self.context_length - 2
        if not truncate:
            _refuse(
                rows,
                lambda row: len(row) > room,
                f"does not fit the context of {self.context_length} tokens (pass truncate=True "
                "to cut it)",
            )
        tokens = np.zeros((len(rows), self.context_length), np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            filled = [START, *ids[:room], END]
            row[: len(filled)] = filled
        return tokens


def clean(caption: str) -> str:
    r"""Mend broken characters, resolve entities, tidy whitespace, lower case.

    Example:
        >>> clean("  Caf&amp;eacute;\n sâ€™il  ")
        "café s'il"
    """
    mended = require_extra("ftfy", "clip").fix_text(caption)
    return " ".join(html.unescape(html.unescape(mended)).split()).lower()


def _refuse(rows: Sequence[Any], is_bad: Any, what: str) -> None:
    bad = [index for index, row in enumerate(rows) if is_bad(row)]
    if bad:
        others = f"; so are {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(f"caption {bad[0]} {what}{others}")


@functools.cache
def _byte_pairs() -> Any:
    library = require_extra("tokenizers", "clip")
    vocabulary, merges = _vocabulary()
    tokenizer = library.Tokenizer(
        library.models.BPE(vocabulary, merges, end_of_word_suffix="</w>", fuse_unk=False)
    )
    words = library.pre_tokenizers.Split(library.Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [words, library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens to ids, and merges in order of rank.

    Ids are: the 256 bytes, the same at the end of a word, one for each merge, start, end.
    """
    packed = files("jaxinf.models.clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    # the first line is a version, and the file holds more merges than CLIP uses
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : VOCAB_SIZE - 2 * 256 - 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    # the bytes that do not print are written as the characters from 256 on
    characters = [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += [left + right for left, right in merges]
    tokens += ["<start_of_text>", "<end_of_text>"]
    return {token: index for index, token in enumerate(tokens)}, merges
