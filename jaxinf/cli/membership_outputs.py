"""Scores as files: a row per pair, and a row per pair that was left out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.cli.membership_attacks import Judged
from jaxinf.cli.membership_pairs import Pairs
from jaxinf.errors import InputError, require_extra


def write_scores(folder: Path, sets: Mapping[str, Pairs], judged: Judged) -> Path:
    """Write `scores.parquet`: `set`, `file`, `caption`, a score and a flag of each attack.

    Scores are higher for what is more likely a member, and null where the attack has learnt from
    the pair. `csa_flagged` and the like: the score is above the threshold that was set on known
    non-members. `is_member` is written where the table of the targets has it.

    Raises:
        InputError: the folder cannot be written to.
    """
    attacks = {a.name: a.name.lower().replace(" ", "_") for a in judged.report.attacks}
    thresholds = {a.name: a.calibrated.threshold for a in judged.report.attacks}
    columns: dict[str, list[Any]] = {"set": [], "file": [], "caption": [], "is_member": []}
    columns |= {column: [] for column in attacks.values()}
    columns |= {f"{column}_flagged": [] for column in attacks.values()}
    for name, rows in judged.scores.items():
        pairs = sets[name]
        columns["set"] += [name] * len(pairs)
        columns["file"] += pairs.files
        columns["caption"] += pairs.captions
        truth = pairs.is_member
        columns["is_member"] += [None] * len(pairs) if truth is None else truth.tolist()
        for attack, column in attacks.items():
            values = rows.get(attack, np.full(len(pairs), np.nan)).astype(float)
            columns[column] += _known(values, values)
            columns[f"{column}_flagged"] += _known(values, values > thresholds[attack])
    if not any(mark is not None for mark in columns["is_member"]):
        del columns["is_member"]
    table = require_extra("pyarrow", "cli").table(columns)
    return _write(folder / "scores.parquet", table, "pyarrow.parquet", "write_table")


def write_dropped(folder: Path, sets: Iterable[Pairs]) -> Path:
    """Write `dropped.csv`: `set`, `file` and `reason` of every pair that was left out.

    Raises:
        InputError: the folder cannot be written to.
    """
    rows = [(pairs.name, *gone) for pairs in sets for gone in pairs.dropped]
    names = ("set", "file", "reason")
    columns = {name: [str(row[at]) for row in rows] for at, name in enumerate(names)}
    pyarrow = require_extra("pyarrow", "cli")
    table = pyarrow.table({name: pyarrow.array(c, pyarrow.string()) for name, c in columns.items()})
    return _write(folder / "dropped.csv", table, "pyarrow.csv", "write_csv")


def _known(scores: np.ndarray, values: np.ndarray) -> list[Any]:
    """Values, null where there is no score."""
    return [
        value if known else None
        for value, known in zip(values.tolist(), (~np.isnan(scores)).tolist(), strict=True)
    ]


def _write(file: Path, table: Any, module: str, writer: str) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        getattr(require_extra(module, "cli"), writer)(table, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error})") from error
    return file
