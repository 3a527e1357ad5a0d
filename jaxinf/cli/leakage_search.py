"""Searching for leaks by comparing one set of data with another: no model is needed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.applications.leakage import (
    Leaks,
    decide_leaks,
    leak_statistics,
)
from jaxinf.applications.leakage.find import check_calibration
from jaxinf.cli.features import put_together
from jaxinf.cli.leakage_choices import Compare
from jaxinf.cli.leakage_shared import Asked, Found
from jaxinf.cli.rows import Rows, Wanted, load_npy
from jaxinf.cli.tables import TABLES, read_rows
from jaxinf.cli.value_choices import Embedding
from jaxinf.datasets.transforms import all_shifts
from jaxinf.errors import InputError
from jaxinf.influence import (
    Attributor,
    content_hashes,
    perceptual_hashes,
    representation_similarity,
    signature_match,
)

# of the training rows, how many calibrate where no clean examples are given
_CALIBRATING = 1000
# such a file brings no labels
_UNLABELLED = ".npy"


def search_by_comparing(
    train_path: Path,
    test_path: Path,
    clean_path: Path | None,
    compare: Compare,
    wanted: Wanted,
    embedding: Embedding,
    asked: Asked,
) -> Found:
    """Compare every test example with every training example.

    Raises:
        InputError: sets that cannot be read or compared, an empty one, images where none are
            needed, too few clean examples, or all that `find_leaks` refuses.
    """
    train = _read(train_path, wanted)
    is_table = train.columns is not None and test_path.suffix.lower() in TABLES
    other = replace(
        wanted, side="test", features=tuple(train.columns or ()) if is_table else wanted.features
    )
    test = _read(test_path, other)
    clean = None if clean_path is None else _read(clean_path, other)
    check_calibration(len(train if clean is None else clean), asked.fdr)
    held = _comparable(train, [test] if clean is None else [test, clean], compare, embedding)
    attributor = _attributor(compare)
    shape = _image_shape(train) if compare is Compare.SHIFTED else None

    def scores(rows: np.ndarray, name: str) -> Iterator[np.ndarray]:
        return _scores(attributor, rows, held[0], asked, name, shape)

    found = leak_statistics(scores(held[1], "test"), **asked.settings)
    if clean is not None:
        null_scores = scores(held[2], "clean")
        calibration = f"{len(clean):,} examples of {clean.name}, known to be clean"
    else:
        null_scores = _among_themselves(scores, held[0], asked.seed)
        calibration = (
            f"{min(_CALIBRATING, len(train)):,} training examples, each against the rest of the "
            "training set: this takes test and training examples to be alike, and copies within "
            "the training set make it cautious"
        )
    null = leak_statistics(null_scores, **asked.settings)
    leaks = decide_leaks(found, null, fdr=asked.fdr)
    return Found(
        leaks,
        null,
        compare.value,
        calibration,
        len(train),
        _columns(train, test, leaks),
        _cards(test),
        _cards(train),
        False,
    )


def _read(path: Path, wanted: Wanted) -> Rows:
    if path.suffix.lower() == _UNLABELLED and path.exists():
        inputs = load_npy(path)
        rows = Rows(str(path), np.zeros(inputs.shape[:1], np.int64), inputs=inputs)
    else:
        rows = read_rows(path, wanted)
    if not len(rows):
        raise InputError(f"{path} is empty: there is nothing to compare")
    return rows


def _comparable(
    train: Rows, others: list[Rows], compare: Compare, embedding: Embedding
) -> list[np.ndarray]:
    """The training set, then the others, as what is compared."""
    put = [put_together(train, other, embedding) for other in others]
    if compare in (Compare.DISTANCE, Compare.SHIFTED, Compare.COSINE):
        return [put[0].train_features, *(sets.valid_features for sets in put)]
    if compare is Compare.BYTES:
        rows = lambda features: np.asarray(content_hashes(features), np.int64)
        return [rows(put[0].train_features), *(rows(sets.valid_features) for sets in put)]
    pictures = [rows.inputs for rows in (train, *others)]
    return [np.asarray(perceptual_hashes(x), np.int32) for x in pictures if x is not None]


def _attributor(compare: Compare) -> Attributor:
    if compare in (Compare.DISTANCE, Compare.SHIFTED):
        return representation_similarity(lambda _, x: x, metric="euclidean")
    if compare is Compare.COSINE:
        return representation_similarity(lambda _, x: x)
    return signature_match()


def _scores(
    attributor: Attributor,
    queries: np.ndarray,
    train: np.ndarray,
    asked: Asked,
    name: str,
    shape: tuple[int, ...] | None,
) -> Iterator[np.ndarray]:
    """Scores in chunks; with the shape of an image, the best over its shifts."""
    if shape is None:
        yield from asked.score(attributor, (), queries, train, name)
        return
    moved = enumerate(all_shifts(queries.reshape(-1, *shape)))
    streams = [
        asked.score(attributor, (), images.reshape(len(images), -1), train, f"{name}-{number}")
        for number, images in moved
    ]
    for chunks in zip(*streams, strict=True):
        yield np.maximum.reduce(chunks)


def _image_shape(train: Rows) -> tuple[int, ...]:
    if train.inputs is None or train.inputs.ndim not in (3, 4):
        raise InputError(f"{train.name} holds no images, which alone can be compared shifted")
    return train.inputs.shape[1:]


def _among_themselves(
    score: Callable[[np.ndarray, str], Iterator[np.ndarray]], train: np.ndarray, seed: int
) -> Iterator[np.ndarray]:
    """Scores of training rows against all others: a row is no candidate for itself."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(train))[:_CALIBRATING])
    start = 0
    for chunk in score(train[rows], "calibration"):
        found = np.array(chunk, np.float64)
        own = rows[start : start + len(found)]
        found[np.arange(len(own)), own] = -np.inf
        start += len(found)
        yield found


def _columns(train: Rows, test: Rows, leaks: Leaks) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if test.files is not None:
        columns["file"] = list(test.files)
    if train.files is not None:
        columns["source_file"] = [train.files[row] for row in leaks.source.tolist()]
    if not train.name.endswith(_UNLABELLED):
        columns["label"] = test.labels.tolist()
        columns["source_label"] = train.labels[leaks.source].tolist()
    return columns


def _cards(rows: Rows) -> Callable[[int], tuple[str, np.ndarray | None]]:
    is_picture = (
        rows.inputs is not None and rows.inputs.ndim == 4 and rows.inputs.shape[-1] in (1, 3, 4)
    )

    def card(row: int) -> tuple[str, np.ndarray | None]:
        name = f"row {row}" if rows.files is None else rows.files[row]
        picture = rows.inputs[row] if is_picture and rows.inputs is not None else None
        said = "" if rows.name.endswith(_UNLABELLED) else f", labelled {rows.labels[row]}"
        return name + said, picture

    return card
