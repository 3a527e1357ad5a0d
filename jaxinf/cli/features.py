"""Two labelled sets on one footing: the same features, the same numbers for the same classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxinf.cli.rows import Rows, listed
from jaxinf.cli.value_choices import Embedding
from jaxinf.errors import InputError
from jaxinf.valuation.columns import one_hot, raw_features, standardise

# beyond, a column of text is a name or a sentence rather than a category
_MOST_CATEGORIES = 100


class Sets(NamedTuple):
    """What a valuation method takes.

    Attributes:
        train_features: float32[N, d].
        train_labels: int[N], as stored; text becomes its position in the sorted `names`.
        valid_features: float32[M, d].
        valid_labels: int[M].
        names: what each label met on either side is called.
        note: how the features were made, in a sentence.
    """

    train_features: Float[np.ndarray, "N d"]
    train_labels: Int[np.ndarray, " N"]
    valid_features: Float[np.ndarray, "M d"]
    valid_labels: Int[np.ndarray, " M"]
    names: dict[int, str]
    note: str


def put_together(train: Rows, valid: Rows, embedding: Embedding) -> Sets:
    """Make features and labels of two sets comparable.

    Columns of tables are standardised by the training set unless `raw` is asked for; text becomes
    indicators. Images and other stored bytes go to [0, 1], other arrays stay as they are, unless
    `standardise` is asked for.

    Raises:
        InputError: a table beside arrays, columns or widths that differ, text and numbers under
            one name, NaN or infinities, or text that is no category.
    """
    if (train.columns is None) != (valid.columns is None):
        raise InputError(
            f"{train.name} and {valid.name} are of different kinds: a table needs a table beside it"
        )
    labels, names = _common_labels(train, valid)
    if train.columns is None:
        found, note = _from_arrays(train, valid, embedding)
    else:
        found, note = _from_columns(train, valid, embedding)
    cut = len(train)
    return Sets(found[0], labels[:cut], found[1], labels[cut:], names, note)


def _common_labels(train: Rows, valid: Rows) -> tuple[np.ndarray, dict[int, str]]:
    kinds = [rows.labels.dtype.kind == "U" for rows in (train, valid)]
    if kinds[0] != kinds[1]:
        text, numbers = (train, valid) if kinds[0] else (valid, train)
        raise InputError(f"labels are text in {text.name} and numbers in {numbers.name}")
    both = np.concatenate([train.labels, valid.labels])
    classes, positions = np.unique(both, return_inverse=True)
    if kinds[0]:
        return positions.astype(np.int32), dict(enumerate(classes.tolist()))
    return both, {number: str(number) for number in classes.tolist()}


def _from_arrays(
    train: Rows, valid: Rows, embedding: Embedding
) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    assert train.inputs is not None
    assert valid.inputs is not None
    sides = train.inputs, valid.inputs
    for rows, inputs in zip((train, valid), sides, strict=True):
        if inputs.ndim < 2 or not inputs.size or inputs.dtype.kind not in "fiub":
            raise InputError(
                f"inputs of {rows.name} are {inputs.dtype}{list(inputs.shape)}: numbers "
                "[rows, ...] are needed"
            )
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            raise InputError(f"inputs of {rows.name} hold NaN or infinities")
    if sides[0].shape[1:] != sides[1].shape[1:]:
        raise InputError(
            f"rows of {train.name} have shape {sides[0].shape[1:]} and of {valid.name} "
            f"{sides[1].shape[1:]}: both must be made the same way (images: --size)"
        )
    width = int(np.prod(sides[0].shape[1:]))
    if embedding is Embedding.STANDARDISE:
        found = standardise(*sides)
        return (found.train, found.valid), _standardised_note(width, found.constant, 0)
    if all(inputs.dtype == np.uint8 for inputs in sides):
        made = (raw_features(sides[0]), raw_features(sides[1]))
        return made, f"{width:,} stored bytes per row, scaled to [0, 1]"
    made = [inputs.reshape(len(inputs), -1).astype(np.float32) for inputs in sides]
    return (made[0], made[1]), f"{width:,} numbers per row, as they are"


def _from_columns(
    train: Rows, valid: Rows, embedding: Embedding
) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    assert train.columns is not None
    assert valid.columns is not None
    if missing := [name for name in train.columns if name not in valid.columns]:
        raise InputError(
            f"{valid.name} has no column {listed(missing)}, which {train.name} has: --drop it, or "
            "name the --feature columns"
        )
    numbers: list[list[np.ndarray]] = [[], []]
    indicators: list[list[np.ndarray]] = [[], []]
    for name, column in train.columns.items():
        pair = column, valid.columns[name]
        text = [values.dtype.kind == "U" for values in pair]
        if text[0] != text[1]:
            raise InputError(f"column {name!r} is text in one file and numbers in the other")
        if text[0]:
            found = one_hot(*pair)
            if len(found.categories) > _MOST_CATEGORIES:
                raise InputError(
                    f"column {name!r} is text with {len(found.categories):,} different values, no "
                    f"category: leave it out with --drop {name}, or embed it first"
                )
            indicators[0].append(found.train)
            indicators[1].append(found.valid)
            continue
        for rows, values, kept in zip((train, valid), pair, numbers, strict=True):
            if not np.isfinite(values).all():
                raise InputError(f"column {name!r} of {rows.name} holds NaN or infinities")
            kept.append(values.reshape(len(rows), -1).astype(np.float64))
        if numbers[0][-1].shape[1] != numbers[1][-1].shape[1]:
            raise InputError(f"lists of column {name!r} are of unlike length in the two files")
    made, constant = indicators, np.zeros(0, bool)
    if numbers[0]:
        sides = [np.concatenate(parts, axis=1) for parts in numbers]
        if embedding is not Embedding.RAW:
            scaled = standardise(*sides)
            sides, constant = [scaled.train, scaled.valid], scaled.constant
        made = [[side, *extra] for side, extra in zip(sides, indicators, strict=True)]
    train_features, valid_features = (
        np.concatenate(parts, axis=1).astype(np.float32) for parts in made
    )
    width = sum(part.shape[1] for part in numbers[0])
    if embedding is Embedding.RAW:
        note = f"{width} numeric columns as they are, in their own units"
        note += f", and {len(indicators[0])} of text as indicators" if indicators[0] else ""
    else:
        note = _standardised_note(width, constant, len(indicators[0]))
    return (train_features, valid_features), note


def _standardised_note(width: int, constant: np.ndarray, num_text: int) -> str:
    note = f"{width:,} numeric columns, standardised by the training set"
    if constant.any():
        note += f" ({int(constant.sum())} constant there, and 0)"
    return note + (f", and {num_text} of text as indicators" if num_text else "")
