"""Byte-pair tokenizers: trained here, or read from a checkpoint's folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxinf.errors import InputError, check_count, require_extra

END = "<|endoftext|>"

# GPT-2 and Pythia put one token between texts; Llama begins and ends them by two
_BEGINS = {
    END: END,
    "</s>": "<s>",
    "<|end_of_text|>": "<|begin_of_text|>",
    "<|eot_id|>": "<|begin_of_text|>",
    "<eos>": "<bos>",
}


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Texts to tokens and back.

    Attributes:
        inner: the `tokenizers.Tokenizer`.
        end: id of the token that ends a text, or None.
        begin: id of the token that a text begins with; None: the one that ended the last, `end`.

    Raises:
        InputError: `end` or `begin` is no token of this tokenizer.

    Example:
        >>> TextTokenizer(train_bpe(["a"], 257).inner, end=50256)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: end is 50256, which is no token of this tokenizer (0 to 256): ...
    """

    inner: Any
    end: int | None
    begin: int | None = None

    def __post_init__(self):
        if self.begin is None:
            object.__setattr__(self, "begin", self.end)
        for name in ("end", "begin"):
            token = getattr(self, name)
            if token is not None and not _known(self.inner, token):
                raise InputError(
                    f"{name} is {token!r}, which is no token of this tokenizer (0 to "
                    f"{self.vocab_size - 1}): take the tokenizer.json that the checkpoint came with"
                )

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without control tokens.

        Raises:
            InputError: for what is no string.
        """
        return [ids for ids, _ in self.encode_spans(texts)]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids of each text, and where in the text each token begins and ends (characters).

        Raises:
            InputError: for what is no string.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {type(text).__name__}: a string is needed")
        found = self.inner.encode_batch(texts, add_special_tokens=False)
        return [(list(one.ids), list(one.offsets)) for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that tokens stand for."""
        return self.inner.decode([int(i) for i in ids], skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself; bytes that are no character show as �."""
        return [self.decode([i]) for i in ids]

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into a folder, as checkpoints have it."""
        path = Path(folder) / "tokenizer.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.inner.save(str(path))
        return path


def train_bpe(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Learn a byte-level byte-pair vocabulary, as GPT-2's.

    Args:
        texts: what to learn it from.
        vocab_size: how many tokens at most: 256 bytes, the end of text, and merges.

    Returns:
        A `TextTokenizer`; any text can be encoded, and decodes to itself.

    Raises:
        InputError: no text, or fewer than 257 tokens.
        MissingExtraError: `tokenizers` is not installed.

    Example:
        >>> tokenizer = train_bpe(["low lower lowest", "low low"], 260)
        >>> tokenizer.pieces(tokenizer.encode(["lower"])[0])
        ['low', 'e', 'r']
    """
    if check_count(vocab_size, "vocab_size") < 257:
        raise InputError(f"vocab_size is {vocab_size}: 256 bytes and the end of text need 257")
    texts = list(texts)
    if not any(texts):
        raise InputError("no text to learn a vocabulary from")
    library = require_extra("tokenizers", "language")
    inner = library.Tokenizer(library.models.BPE())
    inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return TextTokenizer(inner, inner.token_to_id(END))


def load_tokenizer(
    folder: str | Path, *, end: int | None = None, begin: int | None = None
) -> TextTokenizer:
    """Read `tokenizer.json` of a checkpoint's folder (or the file itself).

    Args:
        folder: the folder, or the file.
        end: id of the end-of-text token, as the checkpoint's config says; by default a token that
            is commonly called so.
        begin: id of the token that a text begins with, as the checkpoint's config says; by
            default the one that commonly goes with `end`, such as `<s>` with `</s>`, or `end`.

    Raises:
        InputError: there is none, it cannot be read, or `end` or `begin` is no token of it.
        MissingExtraError: `tokenizers` is not installed.

    Example:
        >>> load_tokenizer("absent")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent: no tokenizer.json there
    """
    path = Path(folder)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{folder}: no tokenizer.json there")
    library = require_extra("tokenizers", "language")
    try:
        inner = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain ones
        raise InputError(f"{path} is no tokenizer of the tokenizers library ({error})") from error
    inner.no_padding()
    inner.no_truncation()
    if end is None:
        known = (END, "</s>", "<|end_of_text|>", "<eos>")
        end = next((i for name in known if (i := inner.token_to_id(name)) is not None), None)
    if begin is None and _known(inner, end):
        partner = _BEGINS.get(inner.id_to_token(end))
        begin = None if partner is None else inner.token_to_id(partner)
    return TextTokenizer(inner, end, begin)


def _known(inner: Any, token: Any) -> bool:
    whole = isinstance(token, int) and not isinstance(token, bool)
    return whole and 0 <= token < 1 << 32 and inner.id_to_token(token) is not None


def check_tokenizer(tokenizer: TextTokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer with tokens that the model does not have.

    A model may have more: vocabularies are often padded to a round number.

    Raises:
        InputError: naming both sizes.

    Example:
        >>> check_tokenizer(train_bpe(["a"], 300), 100)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: the tokenizer has ids up to 256 but the model only 100 tokens: ...
    """
    if tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"the tokenizer has ids up to {tokenizer.vocab_size - 1} but the model only "
            f"{vocab_size} tokens: they do not belong together"
        )
