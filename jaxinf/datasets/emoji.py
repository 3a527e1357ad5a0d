"""Pictures of emoji with their captions: real image-text pairs, in several styles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxinf.datasets.npz import _read_arrays
from jaxinf.errors import InputError


@dataclass(frozen=True, eq=False)
class EmojiCaptions:
    """Emoji as several sets draw them.

    Attributes:
        images: uint8[N, H, W, 3].
        captions: N texts.
        base: string[N], the concept that a picture shows. Pictures of one concept are
            near-duplicates of each other: split by it (`jaxinf.membership.iid_split`).
        style: string[N], who drew it.
    """

    images: UInt8[np.ndarray, "N H W 3"]
    captions: tuple[str, ...]
    base: np.ndarray
    style: np.ndarray


def read_emoji_captions(path: str | Path) -> EmojiCaptions:
    """Read an archive of emoji with captions.

    Args:
        path: an .npz archive with `images` uint8[N, H, W, 3] and the strings [N] `caption`, `base`
            and `style`.

    Returns:
        `EmojiCaptions`, in the order of the archive.

    Raises:
        InputError: no such file or archive, arrays that do not fit each other, or an empty
            caption.

    Example:
        >>> read_emoji_captions("no/such.npz")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such.npz: no such file
    """
    found = _read_arrays(Path(path), ("images", "caption", "base", "style"))
    images = found["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"{path}: images are {images.dtype}{list(images.shape)}: uint8[N, H, W, 3] is needed"
        )
    for name in ("caption", "base", "style"):
        column = found[name]
        if column.dtype.kind != "U" or column.shape != images.shape[:1]:
            raise InputError(
                f"{path}: {name} is {column.dtype}{list(column.shape)}: one string for each of "
                f"{len(images)} images is needed"
            )
    empty = np.flatnonzero(np.char.strip(found["caption"]) == "")
    if empty.size:
        raise InputError(f"{path}: {empty.size} captions are empty, first that of row {empty[0]}")
    return EmojiCaptions(images, tuple(found["caption"].tolist()), found["base"], found["style"])
