"""Pseudo-members: unlabelled pairs that fit the model better than known non-members do."""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxinf.errors import InputError, check_count
from jaxinf.membership.checks import check_features
from jaxinf.membership.cosine import cosine
from jaxinf.typing import AnyArray


class PseudoMembers(NamedTuple):
    """Which unlabelled pairs pass for members.

    Attributes:
        mask: bool[U].
        threshold: the cosine similarity from which on they do.
    """

    mask: Bool[np.ndarray, " U"]
    threshold: float


def select_pseudo_members(
    nonmember_features: Float[AnyArray, "M 2d"],
    unlabeled_features: Float[AnyArray, "U 2d"],
    *,
    threshold_std: float = 1.5,
    min_count: int = 100,
) -> PseudoMembers:
    """Keep the pairs whose similarity is at least mean + λ · std of known non-members'.

    Args:
        nonmember_features: number[M, 2d], [image ‖ text] of pairs that the model cannot have
            seen, M at least `min_count`.
        unlabeled_features: number[U, 2d].
        threshold_std: λ, any sign.
        min_count: fewest pseudo-members to go on with.

    Returns:
        `PseudoMembers`.

    Raises:
        InputError: for features that `check_pairs` refuses, a λ that is not finite, too few
            non-members, or too few pseudo-members, naming the λ that would give enough.

    Example:
        >>> pairs = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
        >>> found = select_pseudo_members(pairs[:200], pairs[200:], threshold_std=-0.5)
        >>> bool(found.mask.sum() > 100)
        True
        >>> select_pseudo_members(pairs[:200], pairs[200:], threshold_std=0)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: threshold_std 0 leaves 91 of 200 unlabeled pairs as
        pseudo-members, 100 are needed: threshold_std of at most -0.12 would give enough
    """
    check_count(min_count, "min_count", minimum=2)
    if not math.isfinite(threshold_std):
        raise InputError(f"threshold_std is {threshold_std}: a finite number")
    known = pair_similarity(nonmember_features, "nonmember_features")
    found = pair_similarity(unlabeled_features, "unlabeled_features")
    if len(known) < min_count:
        raise InputError(f"{len(known)} nonmember_features: at least {min_count} are needed")
    mean, spread = float(known.mean()), float(known.std())
    threshold = mean + threshold_std * spread
    mask = found >= threshold
    if mask.sum() >= min_count:
        return PseudoMembers(mask, threshold)
    if len(found) < min_count:
        advice = f"there are only {len(found)}, so give more"
    else:
        reached = (np.sort(found)[-min_count] - mean) / max(spread, 1e-12)
        advice = f"threshold_std of at most {math.floor(100 * reached) / 100:g} would give enough"
    raise InputError(
        f"threshold_std {threshold_std:g} leaves {int(mask.sum())} of {len(found)} unlabeled "
        f"pairs as pseudo-members, {min_count} are needed: {advice}"
    )


def pair_similarity(features: Float[AnyArray, "N 2d"], name: str) -> Float[np.ndarray, " N"]:
    """Cosine similarity of the two halves of each row, float64 on the host.

    Raises:
        InputError: as `check_pairs`.
    """
    pairs = check_pairs(features, name)
    half = pairs.shape[1] // 2
    return np.asarray(cosine(pairs[:, :half], pairs[:, half:]), np.float64)


def check_pairs(features: Float[AnyArray, "N 2d"], name: str) -> Float[jax.Array, "N 2d"]:
    """Check [image ‖ text] features, halves of equal width.

    Raises:
        InputError: for features that are not [N, 2d], NaN or infinities, a half of zeros.

    Example:
        >>> check_pairs(np.ones((2, 3), np.float32), "target_features")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: target_features have 3 columns: image and text halves of one \
width are needed
    """
    pairs = check_features(features, name)
    if pairs.shape[1] % 2:
        raise InputError(
            f"{name} have {pairs.shape[1]} columns: image and text halves of one width are needed"
        )
    half = pairs.shape[1] // 2
    check_features(features[:, :half], f"{name} (image half)")
    check_features(features[:, half:], f"{name} (text half)")
    return pairs


def refuse_overlap(**sets: Float[AnyArray, "N 2d"]) -> None:
    """Refuse sets of features that differ in width or share a row, bit for bit.

    Raises:
        InputError: naming the two sets, and for a shared row where it is in each.

    Example:
        >>> refuse_overlap(nonmembers=np.eye(2), targets=np.eye(2)[1:])
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: nonmembers and targets share 1 rows, first nonmembers[1] = \
targets[0]: drop them from one
    """
    arrays = {name: np.asarray(rows, np.float64) for name, rows in sets.items()}
    for (first, rows), (second, others) in itertools.combinations(arrays.items(), 2):
        if rows.shape[1] != others.shape[1]:
            raise InputError(
                f"{first} have {rows.shape[1]} columns and {second} {others.shape[1]}: all must "
                "come from one model"
            )
        _, at, where = np.intersect1d(_as_keys(rows), _as_keys(others), return_indices=True)
        if at.size:
            earliest = int(np.argmin(at))
            raise InputError(
                f"{first} and {second} share {at.size} rows, first {first}[{at[earliest]}] = "
                f"{second}[{where[earliest]}]: drop them from one"
            )


def _as_keys(rows: np.ndarray) -> np.ndarray:
    # each row as one opaque value, so that numpy sorts and compares whole rows
    whole = np.ascontiguousarray(rows)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
