"""Hygiene: which images look alike, and splits that near-duplicates never straddle.

All on the host. The near-duplicate of a member is as good as a member.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike
from scipy import sparse

from jaxinf.errors import InputError, require_extra
from jaxinf.membership.hygiene import Overlap


def perceptual_hashes(images: ArrayLike) -> np.ndarray:
    """64 bits per image that small changes leave alone: the pHash of the `imagehash` library.

    Args:
        images: uint8[N, H, W, 3], [N, H, W, 1] or [N, H, W].

    Returns:
        uint64[N].

    Raises:
        InputError: for other shapes or types.
        MissingExtraError: imagehash or Pillow is not installed.

    Example:
        >>> hashes = perceptual_hashes(np.zeros((2, 8, 8, 3), np.uint8))
        >>> bool(hashes[0] == hashes[1])
        True
    """
    pictures = np.asarray(images)
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    if (
        pictures.dtype != np.uint8
        or pictures.ndim not in (3, 4)
        or pictures.shape[3:]
        not in (
            (),
            (3,),
        )
    ):
        raise InputError(
            f"images are {pictures.dtype}{list(pictures.shape)}: uint8[N, H, W, 3] is needed"
        )
    imagehash = require_extra("imagehash", "membership")
    from_array = require_extra("PIL.Image", "membership").fromarray
    bits = [imagehash.phash(from_array(picture)).hash.ravel() for picture in pictures]
    packed = np.packbits(np.asarray(bits, bool).reshape(len(pictures), 64), axis=1)
    return packed.view(np.uint64).ravel()


def image_overlap(
    first_hashes: ArrayLike, second_hashes: ArrayLike, *, max_distance: int = 4
) -> Overlap:
    """Which images of two sets look alike.

    Every pair is compared, a block of rows at a time: 10⁹ pairs take seconds.

    Args:
        first_hashes: uint64[N], from `perceptual_hashes`.
        second_hashes: uint64[M].
        max_distance: most bits of 64 in which two images that look alike may differ.

    Returns:
        `Overlap`; a row's best match is the nearest.

    Raises:
        InputError: for hashes that are not uint64[N], or a distance out of range.

    Example:
        >>> found = image_overlap(np.uint64([0, 255]), np.uint64([256, 2**64 - 1]))
        >>> found.pairs.tolist()
        [[0, 0]]
    """
    first, second = _check_hashes(first_hashes, max_distance), _check_hashes(second_hashes)
    nearest, distance = np.zeros(len(first), int), np.full(len(first), 65)
    hit = np.zeros(len(second), bool)
    for start, block in _distance_blocks(first, second):
        rows = slice(start, start + len(block))
        nearest[rows] = block.argmin(axis=1)
        distance[rows] = block.min(axis=1)
        hit |= (block <= max_distance).any(axis=0)
    found = np.flatnonzero(distance <= max_distance)
    return Overlap(found, np.flatnonzero(hit), np.stack([found, nearest[found]], axis=1))


def near_duplicate_groups(hashes: ArrayLike, *, max_distance: int = 4) -> Int[np.ndarray, " N"]:
    """Number the groups of images that look alike, directly or through others between them.

    Args:
        hashes: uint64[N], from `perceptual_hashes`.
        max_distance: most bits of 64 in which two images that look alike may differ.

    Returns:
        int[N], 0 to the number of groups − 1; an image like no other is a group of its own.

    Raises:
        InputError: as `image_overlap`.

    Example:
        >>> near_duplicate_groups(np.uint64([0, 255, 1])).tolist()
        [0, 1, 0]
    """
    known = _check_hashes(hashes, max_distance)
    links = [
        (start + rows, columns)
        for start, block in _distance_blocks(known, known)
        for rows, columns in [np.nonzero(block <= max_distance)]
    ]
    rows, columns = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(known),) * 2)
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def iid_split(
    groups: ArrayLike, *, member_fraction: float = 0.5, seed: int
) -> Bool[np.ndarray, " N"]:
    """Split examples at random into members and non-members, whole groups at a time.

    Given that the model is then trained on the members alone, both sides come from one
    distribution: the split on which a blind control can win by luck only.

    Args:
        groups: int or string[N]: examples that must stay together share one, such as
            `near_duplicate_groups` or an emoji's base; `np.arange(N)` splits them one by one.
        member_fraction: share of the examples to become members, between 0 and 1; it is met as
            nearly as whole groups allow.
        seed: the split.

    Returns:
        bool[N], True = member; both kinds occur.

    Raises:
        InputError: for groups that are not [N], fewer than two of them, or a fraction out of
            range.

    Example:
        >>> iid_split([7, 7, 3, 3], seed=0).tolist()
        [False, False, True, True]
    """
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise InputError(f"groups have shape {labels.shape}: one for each example, [N]")
    if not 0 < member_fraction < 1:
        raise InputError(f"member_fraction is {member_fraction}: give a share between 0 and 1")
    names, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(f"{len(names)} groups: at least 2 are needed for a split")
    order = np.random.default_rng(seed).permutation(len(names))
    running = np.cumsum(sizes[order])
    cut = 1 + int(np.argmin(np.abs(running[:-1] - member_fraction * len(labels))))
    chosen = np.zeros(len(names), bool)
    chosen[order[:cut]] = True
    return chosen[group]


def _distance_blocks(
    first: np.ndarray, second: np.ndarray, entries: int = 10_000_000
) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, entries // max(1, len(second)))
    for start in range(0, len(first), rows):
        yield start, np.bitwise_count(first[start : start + rows, None] ^ second)


def _check_hashes(hashes: ArrayLike, max_distance: int = 0) -> np.ndarray:
    known = np.asarray(hashes)
    if known.dtype != np.uint64 or known.ndim != 1 or not known.size:
        raise InputError(
            f"hashes are {known.dtype}{list(known.shape)}: uint64[N] from perceptual_hashes"
        )
    if not 0 <= max_distance <= 64:
        raise InputError(f"max_distance is {max_distance}: bits of 64, so 0 to 64")
    return known
