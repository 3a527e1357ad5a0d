"""Pairs that two sets share: counted, named, and dropped."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from jaxinf.cli.membership_features import Encoded
from jaxinf.cli.membership_pairs import UNLABELED, Pairs
from jaxinf.membership import Overlap, caption_overlap, image_overlap, url_overlap


@dataclass(frozen=True)
class Shared:
    """What two sets share by one way of comparing.

    Attributes:
        by: what was compared: captions, URLs or images.
        first: name of the one set.
        second: name of the other.
        found: the rows.
    """

    by: str
    first: str
    second: str
    found: Overlap

    @property
    def any(self) -> bool:
        """Whether there is anything shared at all."""
        return bool(len(self.found.first_rows))

    def __str__(self) -> str:
        """In words.

        Example:
            >>> rows = np.arange(2)
            >>> print(Shared("captions", "targets", "nonmembers", Overlap(rows, rows, rows)))
            2 of targets and 2 of nonmembers share their captions
        """
        return (
            f"{len(self.found.first_rows):,} of {self.first} and {len(self.found.second_rows):,} "
            f"of {self.second} share their {self.by}"
        )


def shared_texts(sets: Mapping[str, Pairs]) -> list[Shared]:
    """Captions (normalised as the paper does) and URLs that occur in two sets."""
    found = []
    for first, second in combinations(sets.values(), 2):
        by_caption = caption_overlap(first.captions, second.captions)
        found.append(Shared("captions", first.name, second.name, by_caption))
        if first.urls is not None and second.urls is not None:
            by_url = url_overlap(first.urls, second.urls)
            found.append(Shared("URLs", first.name, second.name, by_url))
    return found


def shared_images(hashes: Mapping[str, np.ndarray]) -> list[Shared]:
    """Images that look alike in two sets, by `perceptual_hashes`."""
    return [
        Shared("images", first, second, image_overlap(hashes[first], hashes[second]))
        for first, second in combinations(hashes, 2)
    ]


def reasons_to_drop(shared: list[Shared]) -> dict[str, dict[int, str]]:
    """Why each row goes.

    A target that is among the non-members is a member and a non-member at once: it goes from both.
    What the unlabelled pairs share with another set goes from the unlabelled ones alone.

    Example:
        >>> rows = np.arange(1)
        >>> overlap = Overlap(rows, rows, rows)
        >>> reasons_to_drop([Shared("captions", "nonmembers", "unlabeled", overlap)])
        {'unlabeled': {0: 'captions also in nonmembers'}}
    """
    reasons: dict[str, dict[int, str]] = {}
    for each in shared:
        sides = (
            (each.first, each.second, each.found.first_rows),
            (each.second, each.first, each.found.second_rows),
        )
        for name, other, rows in sides:
            if UNLABELED in (each.first, each.second) and name != UNLABELED:
                continue
            for row in rows.tolist():
                reasons.setdefault(name, {}).setdefault(row, f"{each.by} also in {other}")
    return reasons


def drop_shared_texts(
    sets: Mapping[str, Pairs], keep: bool
) -> tuple[dict[str, Pairs], list[Shared]]:
    """Sets without what they share by captions and URLs, and what that was; `keep` only counts."""
    shared = shared_texts(sets)
    reasons = {} if keep else reasons_to_drop(shared)
    return {name: pairs.drop(reasons.get(name, {})) for name, pairs in sets.items()}, shared


def drop_shared_images(
    encoded: Mapping[str, tuple[Pairs, Encoded]], keep: bool
) -> tuple[dict[str, tuple[Pairs, Encoded]], list[Shared]]:
    """The same of images that look alike, for sets whose images were hashed."""
    hashes = {name: codes.hashes for name, (_, codes) in encoded.items()}
    shared = shared_images({name: bits for name, bits in hashes.items() if bits is not None})
    reasons = {} if keep else reasons_to_drop(shared)
    kept = {}
    for name, (pairs, codes) in encoded.items():
        gone = reasons.get(name, {})
        rows = np.setdiff1d(np.arange(len(pairs)), list(gone))
        kept[name] = pairs.drop(gone), codes.rows(rows)
    return kept, shared
