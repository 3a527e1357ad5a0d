"""Whatever holds the examples, the rows read are the same."""

import itertools

import grain
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from jaxinf.engine import as_source, read_blocks, rebatch
from jaxinf.engine.sources import IterableSource, check_rows, sample_rows, source_fingerprint
from jaxinf.errors import InputError

ROWS = 23


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(ROWS, 3, 2)).astype(np.float32),
        "y": rng.integers(0, 9, ROWS).astype(np.int32),
    }


def as_list(arrays, tmp_path):
    return [{key: column[i] for key, column in arrays.items()} for i in range(ROWS)]


def as_memmap(arrays, tmp_path):
    for key, column in arrays.items():
        np.save(tmp_path / f"{key}.npy", column)
    return {key: np.load(tmp_path / f"{key}.npy", mmap_mode="r") for key in arrays}


def as_h5py(arrays, tmp_path):
    file = h5py.File(tmp_path / "data.h5", "w")
    for key, column in arrays.items():
        file[key] = column
    return file


def as_zarr(arrays, tmp_path):
    group = zarr.open_group(tmp_path / "data.zarr", mode="w")
    for key, column in arrays.items():
        group.create_array(key, data=column)
    return group


def as_hugging_face(arrays, tmp_path):
    import datasets

    features = datasets.Features(x=datasets.Array2D((3, 2), "float32"), y=datasets.Value("int32"))
    return datasets.Dataset.from_dict(arrays, features=features)


def as_grain(arrays, tmp_path):
    return grain.MapDataset.source(as_list(arrays, tmp_path))


def as_device_arrays(arrays, tmp_path):
    return {key: jnp.asarray(column) for key, column in arrays.items()}


@pytest.mark.parametrize(
    "make",
    [as_list, as_memmap, as_h5py, as_zarr, as_hugging_face, as_grain, as_device_arrays],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_kind_reads_the_same_rows(arrays, tmp_path, make):
    source = as_source(make(arrays, tmp_path))
    assert len(source) == ROWS
    for start, stop in ((0, 5), (7, 8), (20, 23)):
        rows = source.read(start, stop)
        for key, column in arrays.items():
            np.testing.assert_array_equal(rows[key], column[start:stop])
            # Hugging Face's NumPy format widens integers
            assert rows[key].dtype.kind == column.dtype.kind
    blocks = list(read_blocks(source, 10))
    assert [(block.start, block.count) for block in blocks] == [(0, 10), (10, 10), (20, 3)]
    np.testing.assert_array_equal(blocks[-1].batch["y"][3:], arrays["y"][-1])
    np.testing.assert_array_equal(blocks[-1].mask, np.arange(10) < 3)


@pytest.mark.parametrize("sizes", [(23,), (1,) * 23, (7, 1, 12, 3), (5, 5, 5, 5, 3)])
def test_batches_of_any_size_become_blocks(arrays, sizes):
    edges = np.cumsum((0, *sizes))
    pieces = [
        {key: column[a:b] for key, column in arrays.items()} for a, b in itertools.pairwise(edges)
    ]
    blocks = list(rebatch(IterableSource(iter(pieces)), 4))
    assert all(len(block.batch["y"]) == 4 for block in blocks)
    assert [block.start for block in blocks] == list(range(0, ROWS, 4))
    seen = np.concatenate([block.batch["y"][: block.count] for block in blocks])
    np.testing.assert_array_equal(seen, arrays["y"])


def test_python_floats_take_the_width_of_jax():
    assert as_source([{"x": 1.5, "y": 2}]).read(0, 1)["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"x": np.zeros(2)}, {"y": 1}], "x64 flag"),
        ([{"x": np.float32(1)}, {"y": 1}], "one structure"),
        ([np.zeros((2, 3), np.float32), np.zeros((2,), np.float32)], "unequal shapes"),
        (3.0, "is a float"),
        ({"x": np.float32(1)}, "no leading axis"),
    ],
)
def test_what_cannot_be_read_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        as_source(data).read(0, 2)


def test_rows_not_finite_are_refused_with_their_number(arrays):
    arrays["x"][13, 1, 0] = np.nan
    with pytest.raises(InputError, match="first in example 13"):
        check_rows(as_source(arrays))
    with pytest.raises(InputError, match="first in example 13"):
        list(rebatch(IterableSource([arrays]), 4))


def test_fingerprints_tell_sources_apart(arrays, tmp_path):
    same = source_fingerprint(as_source({key: column.copy() for key, column in arrays.items()}))
    assert source_fingerprint(as_source(arrays)) == same
    arrays["y"][11] += 1
    assert source_fingerprint(as_source(arrays)) != same
    on_disk = source_fingerprint(as_source(as_memmap(arrays, tmp_path)))
    arrays["x"][0] += 1
    assert source_fingerprint(as_source(as_memmap(arrays, tmp_path))) != on_disk


def test_samples_hold_the_ends():
    rows = sample_rows(1000)
    assert (rows[0], rows[-1], len(rows)) == (0, 999, 64)
    assert sample_rows(3) == [0, 1, 2]
