"""Image-text sets for the membership benchmark, and how their pairs are dealt out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.common import ROOT
from jaxinf.datasets.emoji import read_emoji_captions
from jaxinf.datasets.scenes import digit_scenes, scene_words
from jaxinf.datasets.words import common_words
from jaxinf.models.clip import (
    CLIPConfig,
    TextConfig,
    TransformerConfig,
    VisionTransformerConfig,
)

EMOJI = ROOT.parent / "shared" / "data" / "emoji_captions.npz"
SIZE = 32
# members are trained on; judged ones of both kinds are what attacks are judged by; the weakly
# supervised attack learns from the known and the unlabelled ones; another model is trained on the
# others
SHARES = {
    "judged members": 4 / 16,
    "unlabeled members": 2 / 16,
    "judged non-members": 4 / 16,
    "unlabeled non-members": 1 / 16,
    "known non-members": 2 / 16,
    "others": 3 / 16,
}
MEMBER_SHARE = SHARES["judged members"] + SHARES["unlabeled members"]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs ready for a small CLIP.

    Attributes:
        images: uint8[N, 32, 32, 3].
        tokens: int32[N, T].
        captions: N texts.
        groups: [N]; pairs of one group stay together.
        config: the CLIP.
    """

    images: np.ndarray
    tokens: np.ndarray
    captions: np.ndarray
    groups: np.ndarray
    config: CLIPConfig


def scenes(num_members: int, seed: int) -> PairSet:
    """Digits in coloured scenes, as many as it takes for so many members."""
    drawn = digit_scenes(round(num_members / MEMBER_SHARE), seed=seed, size=SIZE)
    words = scene_words()
    config = small_clip(words.vocab_size, words.context_length)
    count = np.arange(len(drawn.captions))
    return PairSet(drawn.images, words(drawn.captions), np.asarray(drawn.captions), count, config)


def emoji(num_members: int, seed: int) -> PairSet:
    """Emoji with captions, at half their size; one concept is one group."""
    found = read_emoji_captions(EMOJI)
    # the words of the whole set, so that the model is the same for every draw
    words = common_words(found.captions, 12, min_count=2)
    names, group = np.unique(found.base, return_inverse=True)
    wanted = min(round(num_members / MEMBER_SHARE), len(group))
    # whole concepts, at random, so that a small set is as rich in styles as a large one
    rank = np.random.default_rng(seed).permutation(len(names))[group]
    keep = np.sort(np.argsort(rank, kind="stable")[:wanted])
    images = found.images[keep]
    halved = images.reshape(len(keep), SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    captions = np.asarray(found.captions)[keep]
    return PairSet(
        np.rint(halved).astype(np.uint8),
        words(captions.tolist()),
        captions,
        found.base[keep],
        small_clip(words.vocab_size, words.context_length),
    )


SETS = {"digit scenes": scenes, "emoji": emoji}


def small_clip(vocab_size: int, context_length: int, width: int = 64) -> CLIPConfig:
    """Two blocks for images, one for text."""

    def stack(layers: int) -> TransformerConfig:
        return TransformerConfig(
            width=width, layers=layers, heads=2, mlp_width=2 * width, activation="quick_gelu"
        )

    return CLIPConfig(
        embed_dim=width,
        vision=VisionTransformerConfig(image_size=SIZE, patch_size=8, transformer=stack(2)),
        text=TextConfig(context_length=context_length, vocab_size=vocab_size, transformer=stack(1)),
    )


def deal(
    groups: np.ndarray, shares: Mapping[str, float], seed: int, *, keep: float = 1.0
) -> dict[str, np.ndarray]:
    """Deal rows out at random, whole groups at a time.

    Args:
        groups: [N].
        shares: of each part, summing to one.
        seed: the deal.
        keep: cut every part to this much of its share. Groups differ in size, so parts do too:
            cut ones have the same size on every deal, and one compiled program serves all.

    Returns:
        Rows of each part, rising.
    """
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    # a group belongs where its middle falls
    middle = (np.cumsum(sizes[order]) - sizes[order] / 2) / len(groups)
    part = np.empty(len(names), int)
    part[order] = np.searchsorted(np.cumsum(list(shares.values()))[:-1], middle)
    found = {}
    for at, (name, share) in enumerate(shares.items()):
        rows = rng.permutation(np.flatnonzero(part[group] == at))
        found[name] = np.sort(rows[: int(keep * share * len(groups))] if keep < 1 else rows)
    return found
