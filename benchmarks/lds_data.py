"""The examples of `benchmarks.lds`: two parts of every set that have none in common."""

import functools
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.common import ROOT
from jaxinf.datasets import load_digits, read_jpeg_pack, read_npz

DATA = ROOT.parent / "shared" / "data"
LENGTH = 64  # characters of a piece of text
Part = Literal["report", "development"]
Examples = dict[str, np.ndarray]


class Size(NamedTuple):
    """How large a problem is.

    Attributes:
        train: N.
        queries: K.
        subsets: half-subsets that are retrained on.
        seeds: models per subset.
        width: of the network, where it scales.
        reduced: smaller than the published protocol.
    """

    train: int = 5000
    queries: int = 500
    subsets: int = 50
    seeds: int = 3
    width: int = 0
    reduced: bool = False


def images(
    size: Size, part: Part, quick: bool, two_classes: bool = False
) -> tuple[Examples, Examples]:
    """Training and query images in [0, 1]."""
    if quick:
        whole = load_digits()
    elif two_classes:
        whole = tuple(_cats_and_dogs(side) for side in (range(50_000), range(50_000, 60_000)))
    else:
        whole = tuple(
            read_npz(DATA / "mnist.npz", f"x_{side}", f"y_{side}") for side in ("train", "test")
        )
    drawn = []
    for side, count in zip(whole, (size.train, size.queries), strict=True):
        rows = _share(len(side["y"]), count, part)
        x, y = side["x"][rows], side["y"][rows]
        x = np.asarray(x / 255 if x.dtype == np.uint8 else x, np.float32)
        if quick and two_classes:
            x, y = np.repeat(x, 3, axis=3), (y % 2).astype(np.int32)
        drawn.append({"x": x, "y": y})
    return drawn[0], drawn[1]


@functools.cache
def _cats_and_dogs(rows: range) -> Examples:
    path = DATA / "cifar10_jpeg.npz"
    with np.load(path) as archive:
        labels = archive["label"][rows.start : rows.stop]
    found = read_jpeg_pack(path, rows.start + np.flatnonzero(np.isin(labels, (3, 5))))
    return found | {"y": (found["y"] == 5).astype(np.int32)}


def characters(size: Size, part: Part) -> tuple[Examples, Examples]:
    """Pieces of the text; queries come from its last tenth."""
    text = (DATA / "tinyshakespeare.txt").read_bytes()
    codes = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)[1].astype(np.int32)
    pieces = codes[: len(codes) // LENGTH * LENGTH].reshape(-1, LENGTH)
    cut = len(pieces) * 9 // 10
    sides = pieces[:cut], pieces[cut:]
    train, queries = (
        {"x": side[_share(len(side), count, part)]}
        for side, count in zip(sides, (size.train, size.queries), strict=True)
    )
    return train, queries


def _share(available: int, count: int, part: Part) -> np.ndarray:
    """Rows drawn without repeats; the two parts have none in common."""
    if 2 * count > available:
        raise SystemExit(f"{count} examples for each of two parts, of {available}: ask for fewer")
    rows = np.random.default_rng(0).permutation(available)
    return rows[:count] if part == "report" else rows[count : 2 * count]
