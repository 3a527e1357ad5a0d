"""Several sentences in one row: less padding, the same losses."""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_count
from jaxinf.typing import Batch


def pack(batch: Batch, length: int) -> dict[str, np.ndarray]:
    """Put sentences side by side, first-fit, longest first.

    A sentence's tokens see those of its own alone and count their positions from its start, so
    that nothing changes for it (`CausalLM` takes `positions` and `segments`).

    Args:
        batch: `tokens` and `mask`, [N, T], padding behind each sentence, as from `encode_texts`.
        length: tokens per packed row, at most the model's context.

    Returns:
        `tokens`, `mask`, `segments` (1, 2, ... in each row; 0 is padding) and `positions`, each
        [R, length]; and `rows` int32[R, S], which of the N sentences each segment is, −1 where a
        row has fewer.

    Raises:
        InputError: a sentence longer than a row.

    Example:
        >>> tokens = np.array([[5, 6, 0], [7, 8, 9], [4, 0, 0]])
        >>> mask = np.array([[0, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
        >>> packed = pack({"tokens": tokens, "mask": mask}, 4)
        >>> packed["rows"].tolist(), packed["segments"].tolist()
        ([[1, 2], [0, -1]], [[1, 1, 1, 2], [1, 1, 0, 0]])
    """
    tokens, mask = np.asarray(batch["tokens"]), np.asarray(batch["mask"], bool)
    check_count(length, "length")
    sizes = _sizes(tokens, mask)
    if sizes.max() > length:
        long = int(np.argmax(sizes))
        raise InputError(f"sentence {long} has {sizes[long]} tokens, but a row only {length}")
    rows, room = [], []
    for number in np.argsort(-sizes, kind="stable"):
        place = next((i for i, free in enumerate(room) if free >= sizes[number]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(length)
        rows[place].append(int(number))
        room[place] -= sizes[number]
    shape = (len(rows), length)
    packed = {
        "tokens": np.zeros(shape, np.int32),
        "mask": np.zeros(shape, bool),
        "segments": np.zeros(shape, np.int32),
        "positions": np.zeros(shape, np.int32),
        "rows": np.full((len(rows), max(map(len, rows))), -1, np.int32),
    }
    for r, numbers in enumerate(rows):
        packed["rows"][r, : len(numbers)] = numbers
        begins = 0
        for s, number in enumerate(numbers):
            size = sizes[number]
            here = slice(begins, begins + size)
            packed["tokens"][r, here] = tokens[number, :size]
            packed["mask"][r, here] = mask[number, :size]
            packed["mask"][r, begins] = False  # nothing before it predicts it
            packed["segments"][r, here] = s + 1
            packed["positions"][r, here] = np.arange(size)
            begins += size
    return packed


def unpack(values: ArrayLike, packed: Batch, count: int) -> Float[np.ndarray, "... N"]:
    """Numbers per segment back in the order of the sentences.

    Args:
        values: float[..., R, S], such as scores [K, R, S].
        packed: the batch that they belong to.
        count: N, how many sentences there are.

    Returns:
        float[..., N].

    Raises:
        InputError: values of another shape.

    Example:
        >>> unpack([[2.0, 3.0], [1.0, 0.0]], {"rows": np.array([[1, 2], [0, -1]])}, 3).tolist()
        [1.0, 2.0, 3.0]
    """
    found, rows = np.asarray(values), np.asarray(packed["rows"])
    if found.shape[-2:] != rows.shape:
        raise InputError(
            f"values have shape {found.shape}: [..., {rows.shape[0]}, {rows.shape[1]}]"
        )
    ordered = np.full((*found.shape[:-2], count), np.nan, found.dtype)
    real = rows >= 0
    ordered[..., rows[real]] = found[..., real]
    return ordered


def _sizes(tokens: np.ndarray, mask: np.ndarray) -> Any:
    """Tokens of each sentence: up to the last that counts or is no padding."""
    used = mask | (tokens != 0)
    used[:, 0] = True
    return tokens.shape[1] - np.argmax(used[:, ::-1], axis=1)
