"""Sentences and questions as padded arrays of tokens."""

from collections.abc import Sequence

import numpy as np

from jaxinf.errors import InputError
from jaxinf.models.language.tokenizer import TextTokenizer, check_tokenizer
from jaxinf.typing import Batch


def encode_texts(
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    *,
    context: int,
    vocab_size: int | None = None,
    length: int | None = None,
    truncate: bool = False,
    spans: Sequence[tuple[int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Texts as `tokens` and `mask`, between the tokens that begin and end a text.

    Args:
        texts: N strings.
        tokenizer: with or without tokens that begin and end a text.
        context: the longest sequence that the model takes.
        vocab_size: of the model, to see that the tokenizer fits it.
        length: T; default the longest text's, at most `context`.
        truncate: cut what is longer, instead of refusing it.
        spans: first character and one past the last of the part of each text that counts, such as
            a fact's object; default the whole text and the end behind it.

    Returns:
        `tokens` int32[N, T] (padding is 0) and `mask` bool[N, T], true for the tokens that count
        as something to predict: all but the first of the row, or those of `spans`.

    Raises:
        InputError: no texts, an empty one, one that does not fit (the first is named), or a
            tokenizer with more tokens than the model.

    Example:
        >>> from jaxinf.models.language import train_bpe
        >>> batch = encode_texts(["ab", "a"], train_bpe(["x"], 257), context=8)
        >>> batch["tokens"].tolist(), batch["mask"].astype(int).tolist()
        ([[0, 65, 66, 0], [0, 65, 0, 0]], [[0, 1, 1, 1], [0, 1, 1, 0]])
    """
    _check_fit(texts, tokenizer, vocab_size, "texts")
    before, behind = _some(tokenizer.begin), _some(tokenizer.end)
    found = tokenizer.encode_spans(texts)
    _refuse_empty([row for row, _ in found], "text")
    rows = [[*before, *row, *behind] for row, _ in found]
    masks = [[False] + [True] * (len(row) - 1) for row in rows]
    if spans is not None:
        if len(spans) != len(rows):
            raise InputError(f"{len(rows)} texts but {len(spans)} spans: give one each")
        masks = [
            _within(places, span, len(before)) + [False] * len(behind)
            for (_, places), span in zip(found, spans, strict=True)
        ]
    return _pad(rows, masks, context, length, truncate, "text")


def encode_answers(
    prompts: Sequence[str],
    answers: Sequence[str],
    tokenizer: TextTokenizer,
    *,
    context: int,
    vocab_size: int | None = None,
    length: int | None = None,
) -> dict[str, np.ndarray]:
    """Prompts continued by their answers, where the answer's tokens alone count.

    The token that begins a text stands before them; none ends them.

    A space is put between the two where neither has one; trailing spaces of a prompt go to the
    answer, where byte-pair vocabularies have them.

    Args:
        prompts: K strings, such as "The capital of France is".
        answers: K strings, such as "Paris".
        tokenizer: as in `encode_texts`.
        context: as in `encode_texts`.
        vocab_size: as in `encode_texts`.
        length: as in `encode_texts`.

    Returns:
        `tokens` int32[K, T] and `mask` bool[K, T].

    Raises:
        InputError: no prompts, not as many answers, an empty answer, one that does not fit, or a
            tokenizer with more tokens than the model.

    Example:
        >>> from jaxinf.models.language import train_bpe
        >>> batch = encode_answers(["a"], ["b"], train_bpe(["x"], 257), context=8)
        >>> batch["tokens"].tolist(), batch["mask"].astype(int).tolist()
        ([[0, 65, 221, 66]], [[0, 0, 1, 1]])
    """
    _check_fit(prompts, tokenizer, vocab_size, "prompts")
    if len(answers) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(answers)} answers: give one each")
    for number, answer in enumerate(answers):
        if not isinstance(answer, str) or not answer.strip():
            raise InputError(f"answer {number} is empty: the loss is taken on its tokens")
    whole = [f"{p.rstrip()} {a.lstrip()}" for p, a in zip(prompts, answers, strict=True)]
    before = _some(tokenizer.begin)
    found = tokenizer.encode_spans(whole)
    rows = [[*before, *ids] for ids, _ in found]
    masks = [
        _within(places, (len(prompt.rstrip()), len(text)), len(before))
        for prompt, text, (_, places) in zip(prompts, whole, found, strict=True)
    ]
    return _pad(rows, masks, context, length, False, "prompt and answer")


def same_length(*batches: Batch) -> list[dict[str, np.ndarray]]:
    """Pad batches of `encode_texts` and `encode_answers` to one common length.

    Example:
        >>> short, long = {"tokens": np.ones((1, 2))}, {"tokens": np.ones((1, 3))}
        >>> [batch["tokens"].tolist() for batch in same_length(short, long)]
        [[[1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]]
    """
    longest = max(array.shape[1] for batch in batches for array in batch.values())
    return [
        {
            name: np.pad(array, ((0, 0), (0, longest - array.shape[1])))
            for name, array in batch.items()
        }
        for batch in batches
    ]


def _some(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _within(places: Sequence[tuple[int, int]], span: tuple[int, int], before: int) -> list[bool]:
    """Which tokens share a character with a span; the first of a row has nothing to predict it."""
    inside = [last > span[0] and first < span[1] for first, last in places]
    mask = [False] * before + inside
    return [False, *mask[1:]]


def _check_fit(
    texts: Sequence[str], tokenizer: TextTokenizer, vocab_size: int | None, name: str
) -> None:
    if isinstance(texts, str) or not len(texts):
        raise InputError(f"{name} is empty or one string: pass a sequence of strings")
    if vocab_size is not None:
        check_tokenizer(tokenizer, vocab_size)


def _refuse_empty(rows: list[list[int]], what: str) -> None:
    empty = [number for number, row in enumerate(rows) if not row]
    if empty:
        raise InputError(f"{what} {empty[0]} is empty (one of {len(empty)}): leave them out")


def _pad(
    rows: list[list[int]],
    masks: list[list[bool]],
    context: int,
    length: int | None,
    truncate: bool,
    what: str,
) -> dict[str, np.ndarray]:
    room = context if length is None else min(length, context)
    long = [number for number, row in enumerate(rows) if len(row) > room]
    if long and not truncate:
        limit = "the model's context is" if room == context else "length is"
        raise InputError(
            f"{what} {long[0]} has {len(rows[long[0]])} tokens (one of {len(long)} too long), but "
            f"{limit} {room}: cut or split it"
        )
    size = length or min(max(map(len, rows)), room)
    tokens = np.zeros((len(rows), size), np.int32)
    mask = np.zeros((len(rows), size), bool)
    for number, (row, counts) in enumerate(zip(rows, masks, strict=True)):
        kept = min(len(row), size)
        tokens[number, :kept], mask[number, :kept] = row[:kept], counts[:kept]
    return {"tokens": tokens, "mask": mask}
