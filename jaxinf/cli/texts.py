"""Texts and questions from files: plain lines, JSON lines, csv and parquet tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxinf.cli.rows import find_name, first_line
from jaxinf.errors import InputError, require_extra

TEXTS = ("text", "sentence", "content", "document")
PROMPTS = ("prompt", "question", "query")
ANSWERS = ("answer", "completion", "response", "object")


def read_columns(path: Path, asked: Sequence[tuple[str | None, Sequence[str], str, str]]) -> Any:
    """Columns of text from a file.

    Args:
        path: .txt (one text per line, empty ones left out), .jsonl, .csv or .parquet.
        asked: for each column its name or None, the usual names, what it is, and the option that
            names it. A .txt file has one column, without a name.

    Returns:
        A list of texts per column asked for, all of one length.

    Raises:
        InputError: no such file, another kind, a damaged one, no such column, values that are no
            text, or no rows.

    Example:
        >>> read_columns(Path("absent.txt"), [(None, TEXTS, "the texts", "--column")])
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent.txt: no such file
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind == ".txt":
        if len(asked) > 1:
            raise InputError(f"{path}: prompts with answers need .jsonl, .csv or .parquet")
        found = [[line for line in _read_text(path).splitlines() if line.strip()]]
    elif kind in (".jsonl", ".csv", ".parquet"):
        columns = _read_lines(path) if kind == ".jsonl" else _read_table(path, kind)
        names = [find_name(path, list(columns), *one) for one in asked]
        found = [columns[name] for name in names]
        for name, texts in zip(names, found, strict=True):
            bad = [row for row, text in enumerate(texts) if not isinstance(text, str)]
            if bad:
                raise InputError(
                    f"{path}: row {bad[0]} of {name!r} is {type(texts[bad[0]]).__name__}, not text"
                )
    else:
        raise InputError(
            f"{path}: files of kind {path.suffix or 'no suffix'!r} are not read: give .txt, "
            ".jsonl, .csv or .parquet"
        )
    if not found[0]:
        raise InputError(f"{path} has no texts")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({first_line(error)})") from error


def _read_lines(path: Path) -> dict[str, list[Any]]:
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is no JSON ({first_line(error)})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_table(path: Path, kind: str) -> dict[str, list[Any]]:
    pyarrow = require_extra("pyarrow", "cli")
    module = require_extra("pyarrow.csv" if kind == ".csv" else "pyarrow.parquet", "cli")
    read = module.read_csv if kind == ".csv" else module.read_table
    try:
        return read(path).to_pydict()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)})") from error
