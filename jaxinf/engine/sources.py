"""Where rows come from: everything that users keep examples in, behind two methods.

A `Source` has a length and reads a contiguous range of rows as a pytree of arrays. What it
accepts:

| handed over | how it is read |
|---|---|
| a pytree of arrays (NumPy, JAX, `np.memmap`, zarr, h5py, tensorstore leaves) | leaf slices |
| an h5py or zarr group, or another mapping of arrays | as a dict of its arrays |
| a Hugging Face dataset | batched slices in NumPy format |
| a list, a grain source or map dataset, any `__len__` + `__getitem__` | example by example |
| an iterable of batches | in order, once; no length |

A `list` is a list of examples. For a pytree of arrays use a dict or a tuple.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax import lax

from jaxinf.engine.fingerprint import fingerprint
from jaxinf.errors import (
    InputError,
    check_dtypes,
    check_examples,
    check_finite,
    x64_enabled,
)
from jaxinf.typing import Batch, PyTree

# Sets up to this size are hashed and checked whole, larger ones by a sample of rows.
_WHOLE_BYTES = 1 << 30
_SAMPLE_ROWS = 64


@runtime_checkable
class Source(Protocol):
    """Random access to contiguous ranges of rows."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def read(self, start: int, stop: int) -> Batch:
        """Rows `start` to `stop - 1` as a pytree of arrays with that leading axis."""
        ...


class ArraySource:
    """A pytree of array-likes with one leading axis; leaves are sliced where they lie."""

    def __init__(self, tree: PyTree, name: str = "train"):
        """Check leading axes and dtypes; no values are read."""
        self._tree = tree
        self._length = check_examples(tree, name)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> Batch:
        """Slice every leaf; NumPy leaves come as views, device arrays stay on their device."""
        return jax.tree.map(lambda leaf: _slice(leaf, start, stop), self._tree)

    @property
    def nbytes(self) -> int:
        """Total size of the leaves, in bytes."""
        return sum(
            int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
            for leaf in jax.tree.leaves(self._tree)
        )

    @property
    def in_memory(self) -> bool:
        """Whether every leaf is an array in memory, and not a view of a file."""
        return all(
            isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, np.memmap)
            for leaf in jax.tree.leaves(self._tree)
        )


class RecordSource:
    """A random-access object that returns one example for one index (grain, torch, list-like)."""

    def __init__(self, records: Any, name: str = "train"):
        """Read and check the first record."""
        self._records = records
        if len(records) == 0:
            raise InputError(f"{name} is empty: at least one example is needed")
        check_examples(self.read(0, 1), name)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, start: int, stop: int) -> Batch:
        """Fetch each record and stack them leaf by leaf."""
        return _stack([self._records[i] for i in range(start, stop)], start)


class HuggingFaceSource:
    """A Hugging Face dataset; columns are read in slices, in NumPy format."""

    def __init__(self, dataset: Any, name: str = "train"):
        """Switch the dataset to NumPy format and check its first row."""
        self._dataset = dataset.with_format("numpy")
        if len(dataset) == 0:
            raise InputError(f"{name} is empty: at least one example is needed")
        check_examples(self.read(0, 1), name)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, start: int, stop: int) -> Batch:
        """Slice the columns."""
        return {key: np.asarray(column) for key, column in self._dataset[start:stop].items()}


class IterableSource:
    """An iterable of batches: read once, in order, of unknown length."""

    def __init__(self, batches: Iterable[Batch]):
        """Nothing is consumed yet."""
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def as_source(data: Any, name: str = "train") -> Source | IterableSource:
    """Wrap whatever holds the examples as a source of rows.

    Args:
        data: see the table at the top of this module.
        name: what to call it in error messages.

    Returns:
        A `Source`, or an `IterableSource` for an iterable of batches.

    Raises:
        InputError: for an empty set, unequal leading axes, dtypes that the device cannot hold,
            or something that cannot be read as examples at all.

    Example:
        >>> source = as_source({"x": np.zeros((5, 2), np.float32), "y": np.arange(5)})
        >>> len(source), source.read(1, 3)["y"]
        (5, array([1, 2]))
    """
    if isinstance(data, Source | IterableSource):
        return data
    if hasattr(data, "with_format") and hasattr(data, "features"):
        return HuggingFaceSource(data, name)
    if isinstance(data, Mapping):
        return ArraySource(dict(data.items()), name)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return ArraySource(data, name)
    if hasattr(data, "arrays") and hasattr(data, "group_keys"):  # a zarr group
        return ArraySource(dict(data.arrays()), name)
    if isinstance(data, list) or (
        not _is_pytree_node(data) and hasattr(data, "__len__") and hasattr(data, "__getitem__")
    ):
        return RecordSource(data, name)
    if _is_pytree_node(data):
        return ArraySource(data, name)
    if isinstance(data, Iterable):
        return IterableSource(data)
    raise InputError(
        f"{name} is a {type(data).__name__}: pass a pytree of arrays, an object with __len__ and "
        "__getitem__, or an iterable of batches"
    )


def check_rows(source: Source, name: str = "train") -> None:
    """Refuse NaN and infinities: everywhere when the rows are in memory, else in a sample.

    Rows that are not in memory are checked again as they are read.
    """
    if isinstance(source, ArraySource) and source.in_memory:
        check_finite(source.read(0, len(source)), name, first_row=0)
        return
    for row in sample_rows(len(source)):
        rows = source.read(row, row + 1)
        check_dtypes(rows, name)
        check_finite(rows, name, first_row=row)


def source_fingerprint(source: Source | IterableSource) -> str:
    """Identity of a source: whole when in memory and up to 1 GiB, else by 64 sampled rows.

    The sample is spread evenly and holds the first and the last row; the length always counts.
    An iterable cannot be looked into beforehand: all of them are alike.
    """
    if isinstance(source, IterableSource):
        return "iterable"
    if isinstance(source, ArraySource) and source.in_memory and source.nbytes <= _WHOLE_BYTES:
        return fingerprint(source.read(0, len(source)))
    rows = [source.read(row, row + 1) for row in sample_rows(len(source))]
    return fingerprint((np.asarray(len(source)), rows))


def sample_rows(length: int, count: int = _SAMPLE_ROWS) -> list[int]:
    """Up to `count` row numbers spread evenly over `length` rows, first and last included.

    Example:
        >>> sample_rows(100, 4)
        [0, 33, 66, 99]
    """
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64)).tolist()


def _slice(leaf: Any, start: int, stop: int) -> Any:
    if isinstance(leaf, jax.Array):
        # a traced start: one compiled slice serves every batch
        return lax.dynamic_slice_in_dim(leaf, start, stop - start)
    return np.asarray(leaf[start:stop])


def _stack(records: list[Any], start: int) -> Batch:
    first = jax.tree.structure(records[0])
    for offset, record in enumerate(records):
        if jax.tree.structure(record) != first:
            raise InputError(
                f"example {start + offset} is {jax.tree.structure(record)} but the first one read "
                f"is {first}: examples must have one structure (a list is read as a list of "
                "examples; for a pytree of arrays use a dict or a tuple)"
            )
    try:
        return jax.tree.map(
            lambda *leaves: np.stack([_as_array(leaf) for leaf in leaves]), *records
        )
    except ValueError as error:
        raise InputError(
            f"examples {start} to {start + len(records) - 1} have unequal shapes: pad them to one "
            "shape (a list is read as a list of examples; for a pytree of arrays use a dict or a "
            "tuple)"
        ) from error


def _as_array(leaf: Any) -> np.ndarray:
    # a Python float has no dtype of its own: it takes the width that jax would give it
    if isinstance(leaf, float):
        return np.asarray(leaf, np.float64 if x64_enabled() else np.float32)
    return np.asarray(leaf)


def _is_pytree_node(data: Any) -> bool:
    return not jax.tree_util.all_leaves([data])
