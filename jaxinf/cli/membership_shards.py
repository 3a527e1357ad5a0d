"""Webdataset shards: tar files in which files of one stem make one pair."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxinf.cli.membership_pairs import Pairs, Place

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "tif", "tiff")
_TEXTS = ("txt", "caption", "text")
# what one JSON file of a pair may hold beside its caption
_KEYS = ("caption", "text")


def read_shards(shards: Sequence[Path], name: str) -> Pairs:
    """Index shards: captions are read, images are found and stay where they are.

    A pair is an image with a `.txt` file, or a `.json` file with `caption` (and perhaps `url` and
    `is_member`), of the same stem. An image without a caption, a caption without an image and the
    rest of a shard that is cut short are left out, and named with the reason.

    Args:
        shards: the tar files, in order.
        name: what to call the set in messages.
    """
    files, captions, places, urls, truths = [], [], [], [], []
    dropped: list[tuple[str, str]] = []
    for shard in shards:
        samples, problem = _index(shard)
        if problem:
            dropped.append((shard.name, problem))
        for stem, sample in samples.items():
            file = f"{shard.name}/{stem}"
            if "place" not in sample:
                dropped.append((file, "no image"))
            elif "caption" not in sample:
                dropped.append((file, "no caption"))
            else:
                files.append(file)
                captions.append(sample["caption"])
                places.append(sample["place"])
                urls.append(sample.get("url", ""))
                truths.append(sample.get("is_member"))
    known = all(truth is not None for truth in truths) and bool(truths)
    return Pairs(
        name,
        tuple(files),
        tuple(captions),
        tuple(places),
        tuple(urls) if any(urls) else None,
        np.asarray(truths, bool) if known else None,
        tuple(dropped),
    )


def _index(shard: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What each stem of a shard has, and what was wrong with the shard, if anything."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        # no compression: images are read from their offsets later on
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, kind = path.name.partition(".")
                if not member.isfile() or not stem:
                    continue
                sample = samples.setdefault((path.parent / stem).as_posix(), {})
                kind = kind.lower()
                if kind in _IMAGES:
                    sample["place"] = Place(shard, member.offset_data, member.size)
                elif kind in (*_TEXTS, "json"):
                    content = archive.extractfile(member)
                    assert content is not None
                    sample |= _described(kind, content.read().decode("utf-8", "replace"))
            # a header that is cut off ends the archive like a proper end, but for the empty block
            if shard.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
                return samples, "cut short"
    except (tarfile.TarError, OSError, EOFError) as error:
        return samples, f"cut short or no tar file ({error})"
    return samples, ""


def _described(kind: str, text: str) -> dict[str, Any]:
    """What a text or JSON file says of its pair."""
    if kind != "json":
        return {"caption": text.strip()}
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    found: dict[str, Any] = {}
    for key in _KEYS:
        if isinstance(content.get(key), str):
            found.setdefault("caption", content[key].strip())
    if isinstance(content.get("url"), str):
        found["url"] = content["url"]
    if content.get("is_member") in (0, 1):
        found["is_member"] = bool(content["is_member"])
    return found
