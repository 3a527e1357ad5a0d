"""Pairs as rows of numbers: images opened as they are asked for, captions as tokens."""

import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from jaxtyping import Int32

from jaxinf.cli.devices import num_cores
from jaxinf.cli.membership_pairs import Pairs
from jaxinf.errors import InputError, require_extra
from jaxinf.membership import perceptual_hashes
from jaxinf.models.clip import Preprocess, Tokenizer
from jaxinf.typing import Batch


class ImageRows:
    """A source of rows for the engine: images are opened as they are asked for.

    A damaged image gives a black one with `ok` 0; the reason is kept.
    """

    def __init__(
        self, pairs: Pairs, tokens: Int32[np.ndarray, "N T"], preprocess: Preprocess, hashed: bool
    ):
        """Nothing is opened yet."""
        self._pairs, self._tokens = pairs, tokens
        self._preprocess, self._hashed = preprocess, hashed
        self._pool = ThreadPoolExecutor(num_cores())

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, start: int, stop: int) -> Batch:
        """Pixels uint8[n, S, S, 3], tokens, ids, hashes and which images are sound."""
        read = list(self._pool.map(self.pixels, range(start, stop)))
        side = self._preprocess.size
        black = np.zeros((side, side, 3), np.uint8)
        pixels = np.stack([black if isinstance(image, str) else image for image in read])
        batch = {
            "pixels": pixels,
            "tokens": self._tokens[start:stop],
            "id": np.arange(start, stop, dtype=np.int32),
            "ok": np.array([not isinstance(image, str) for image in read], np.float32),
        }
        if self._hashed:
            # as numbers that float32 holds exactly
            parts = perceptual_hashes(pixels)[:, None].view(np.uint16)
            batch["hash"] = parts.astype(np.float32)
        return batch

    def pixels(self, row: int) -> np.ndarray | str:
        """An image as the encoder takes it, or why it cannot be read."""
        library = require_extra("PIL.Image", "cli")
        unreadable = (OSError, SyntaxError, ValueError, library.DecompressionBombError)
        try:
            with (
                warnings.catch_warnings(),
                library.open(io.BytesIO(self._pairs.places[row].read())) as opened,
            ):
                return self._preprocess.pixels(opened)
        except unreadable as error:
            # Pillow names the buffer it read from, which says nothing
            reason = str(error).partition(" <_io.")[0] or type(error).__name__
            return f"unreadable ({reason})"


def tokenize_sets(
    sets: Sequence[Pairs], tokenize: Tokenizer, truncate: bool
) -> list[Int32[np.ndarray, "N T"]]:
    """Tokens of every set's captions, cut to the longest caption of all.

    Raises:
        InputError: a caption that does not fit the context, unless it may be cut.
    """
    length = tokenize.context_length
    # one token of room more: what fills it does not fit
    roomy = replace(tokenize, context_length=length + 1)
    found = []
    for pairs in sets:
        tokens = roomy(pairs.captions, truncate=True)
        over = np.flatnonzero(tokens[:, length])
        if over.size and not truncate:
            raise InputError(
                f"--{pairs.name}: {over.size} captions are longer than the model's {length} "
                f"tokens, first that of {pairs.files[over[0]]}: shorten them, or cut them with "
                "--truncate"
            )
        tokens[over, length - 1] = tokens[over, length]
        found.append(tokens[:, :length])
    longest = max(int(np.flatnonzero(tokens.any(axis=0)).max()) + 1 for tokens in found)
    return [tokens[:, :longest] for tokens in found]
