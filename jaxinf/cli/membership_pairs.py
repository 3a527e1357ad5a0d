"""Image-text pairs as users keep them: folders of images with a table of captions, or shards."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinf.cli.rows import find_name, first_line
from jaxinf.errors import InputError, require_extra

TARGETS, NONMEMBERS, UNLABELED = "targets", "nonmembers", "unlabeled"
"""What the sets are called."""

TABLES = (".csv", ".jsonl", ".parquet")
_STEMS = ("captions", "metadata", "pairs")
_FILE = ("file", "file_name", "filename", "image", "path")
_CAPTION = ("caption", "text")


class Place(NamedTuple):
    """Where an image's bytes lie: a whole file (`size` None), or a part of one."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: they cannot be read.
        """
        if self.size is None:
            return self.path.read_bytes()
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Pairs:
    """A set of pairs; no image has been opened.

    Attributes:
        name: what the user calls the set, such as `targets`.
        files: name of each image within its set.
        captions: text of each.
        places: where each image lies.
        urls: of each image, empty where unknown; None where no table has any.
        is_member: bool[N], the truth, where the table has it.
        dropped: `(file, reason)` of what was left out so far.
    """

    name: str
    files: tuple[str, ...]
    captions: tuple[str, ...]
    places: tuple[Place, ...]
    urls: tuple[str, ...] | None = None
    is_member: np.ndarray | None = None
    dropped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def drop(self, reasons: dict[int, str]) -> "Pairs":
        """Leave rows out, each for its reason."""
        kept = [row for row in range(len(self)) if row not in reasons]
        gone = tuple((self.files[row], reason) for row, reason in sorted(reasons.items()))
        return replace(self.take(kept), dropped=self.dropped + gone)

    def take(self, rows: Sequence[int]) -> "Pairs":
        """Some rows, in this order."""
        columns: dict[str, Any] = {}
        for column in (f.name for f in fields(self) if f.name not in ("name", "dropped")):
            values = getattr(self, column)
            if isinstance(values, np.ndarray):
                columns[column] = values[np.asarray(rows, int)]
            elif values is not None:
                columns[column] = tuple(values[row] for row in rows)
        return replace(self, **columns)


def read_pairs(path: Path, name: str, captions: Path | None = None) -> Pairs:
    """Find a set's images and captions; images are not opened.

    Args:
        path: a folder of images with a table `captions.csv` (or .jsonl, .parquet; `metadata` and
            `pairs` are looked for as well), such a table itself, or webdataset shards: a .tar
            file, or a folder of them.
        name: what to call the set in messages.
        captions: the table, for a folder that has none; of its rows, those whose image lies in
            the folder belong to it.

    Raises:
        InputError: nothing there, no table, a table without its columns or without rows, an empty
            caption, or no image at all.
    """
    from jaxinf.cli.membership_shards import read_shards

    if not path.exists():
        raise InputError(f"--{name} {path}: no such file or folder")
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        table = captions if captions is not None else _table_in(path)
        if table is None and not shards:
            raise InputError(
                f"--{name} {path} has no captions: put a table captions.csv (or .jsonl, .parquet) "
                "with columns file and caption into it, or name one by --captions"
            )
        found = (
            read_shards(shards, name) if table is None else _of_table(table, path, name, captions)
        )
    elif path.suffix.lower() == ".tar":
        found = read_shards([path], name)
    elif path.suffix.lower() in TABLES:
        found = _of_table(path, path.parent, name, None)
    else:
        raise InputError(
            f"--{name} {path} is no set of pairs: give a folder of images with a table of "
            "captions, such a table (.csv, .jsonl, .parquet), a .tar shard or a folder of shards"
        )
    if not len(found):
        why = f" ({found.dropped[0][0]}: {found.dropped[0][1]})" if found.dropped else ""
        raise InputError(f"--{name} {path} has no image{why}")
    empty = [row for row, caption in enumerate(found.captions) if not caption.strip()]
    if empty:
        raise InputError(
            f"--{name} {path}: {len(empty)} captions are empty, first that of "
            f"{found.files[empty[0]]}: fill them in, or leave the rows out"
        )
    return found


def _table_in(folder: Path) -> Path | None:
    places = (folder / f"{stem}{suffix}" for stem in _STEMS for suffix in TABLES)
    return next((place for place in places if place.is_file()), None)


def _of_table(path: Path, folder: Path, name: str, shared: Path | None) -> Pairs:
    table = _read_table(path)
    names = table.column_names
    where = find_name(path, names, None, _FILE, "images", "a column file")
    text = find_name(path, names, None, _CAPTION, "captions", "a column caption")
    files = [str(file) if file is not None else "" for file in table[where].to_pylist()]
    captions = ["" if c is None else str(c) for c in table[text].to_pylist()]
    urls = None
    if "url" in names:
        urls = tuple("" if url is None else str(url) for url in table["url"].to_pylist())
    truth = _truth(path, table["is_member"].to_pylist()) if "is_member" in names else None
    places = tuple(Place(folder / file) for file in files)
    pairs = Pairs(name, tuple(files), tuple(captions), places, urls, truth)
    missing = {row: "no such file" for row, p in enumerate(places) if not p.path.is_file()}
    if shared is not None:
        # a table of several sets: rows of the others are none of this one's
        return pairs.take([row for row in range(len(pairs)) if row not in missing])
    return pairs.drop(missing)


def _read_table(path: Path) -> Any:
    pyarrow = require_extra("pyarrow", "cli")
    module, reader = {
        ".csv": ("pyarrow.csv", "read_csv"),
        ".jsonl": ("pyarrow.json", "read_json"),
        ".parquet": ("pyarrow.parquet", "read_table"),
    }.get(path.suffix.lower(), ("", ""))
    if not module:
        raise InputError(f"{path} is no table of captions: .csv, .jsonl or .parquet is needed")
    try:
        table = getattr(require_extra(module, "cli"), reader)(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)})") from error
    if not table.num_rows:
        raise InputError(f"{path} has no rows")
    return table


def _truth(path: Path, marks: Sequence[Any]) -> np.ndarray:
    if not all(mark in (0, 1) for mark in marks):
        raise InputError(f"{path}: is_member must be true or false in every row")
    return np.asarray(marks, bool)
