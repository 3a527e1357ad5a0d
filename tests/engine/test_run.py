"""Scoring runs: every way through gives the plain answer."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinf.engine import (
    ScoreStore,
    as_source,
    data_mesh,
    empty_topk,
    merge_topk,
    prefetch,
    score_rows,
    track_rows,
    update_topk,
)
from jaxinf.engine.fingerprint import fingerprint, program_fingerprint
from jaxinf.errors import InputError


def inner_products(weights, batch):
    return weights @ batch.T


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(1003, 5)).astype(np.float32)


@pytest.fixture
def weights():
    return np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def run(rows, weights, **kwargs):
    kwargs = {"batch_size": 64, "chunk_size": 128, "mesh": data_mesh()} | kwargs
    return score_rows(
        inner_products, weights, as_source(rows), num_queries=3, progress=False, **kwargs
    )


@pytest.mark.parametrize("via", ["shard_map", "pmap"])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_scores_and_top_k(rows, weights, via, devices):
    mesh = data_mesh(jax.devices()[:devices])
    expected = weights @ rows.T
    found = run(rows, weights, mesh=mesh, via=via)
    np.testing.assert_allclose(found.scores, expected, atol=2e-6)
    kept = run(rows, weights, mesh=mesh, via=via, top_k=9)
    order = np.argsort(-expected, axis=1)
    np.testing.assert_array_equal(kept.top.rows, order[:, :9])
    np.testing.assert_array_equal(kept.bottom.rows, order[:, ::-1][:, :9])
    np.testing.assert_allclose(kept.bottom.values, np.sort(expected, axis=1)[:, :9], atol=2e-6)


def test_the_second_run_compiles_nothing(rows, weights):
    mesh = data_mesh()
    with jax.log_compiles(False):
        run(rows, weights, mesh=mesh)
        again = run(rows, weights + 1, mesh=mesh)
    assert again.compile_seconds < 0.05


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.0, 1.0, 2.0, float("nan")]), min_size=1, max_size=20),
    st.integers(1, 5),
    st.sampled_from([1, 3, 4]),
)
def test_top_k_breaks_ties_by_row(values, k, batch):
    """Whatever the batches; NaN counts as the smallest."""
    scores = np.array(values, np.float32)
    state = empty_topk(1, k, np.float32)
    for start in range(0, len(scores), batch):
        part = np.full(batch, 7.0, np.float32)  # padding would win if it were not masked
        part[: len(scores[start : start + batch])] = scores[start : start + batch]
        numbers = np.arange(start, start + batch)
        numbers = np.where(numbers < len(scores), numbers, -1).astype(np.int32)
        state = update_topk(state, part[None], numbers)
    clean = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-clean, kind="stable")[:k]
    order = order[np.isfinite(clean[order])]
    np.testing.assert_array_equal(np.asarray(state.rows)[0, : len(order)], order)
    assert (np.asarray(state.rows)[0, len(order) :] == -1).all()
    # the same when every score comes from a device of its own
    halves = [empty_topk(1, k, np.float32) for _ in range(2)]
    for i, score in enumerate(scores):
        at = np.array([i], np.int32)
        halves[i % 2] = update_topk(halves[i % 2], np.array([[score]], np.float32), at)
    merged = merge_topk(jax.tree.map(lambda *a: np.stack(a), *halves))
    np.testing.assert_array_equal(merged.rows[0, : len(order)], order)


def test_nonfinite_scores_are_counted(rows, weights):
    weights = weights.copy()
    weights[1, 0] = np.inf
    for top_k in (None, 3):
        assert run(rows, weights, top_k=top_k).num_nonfinite == len(rows)


def spec(**changed):
    base = {"num_queries": 3, "num_examples": 1003, "chunk_size": 128, "dtype": "float32"}
    return base | {"num_processes": 1} | changed


def test_the_store_keeps_finished_chunks(rows, weights, tmp_path):
    whole = run(rows, weights).scores
    first = ScoreStore(tmp_path, spec())
    stop = 300

    class Broken:
        """Rows that end in an exception."""

        def __len__(self):
            return len(rows)

        def __getitem__(self, i):
            if i >= stop:
                raise OSError("the disk is gone")
            return rows[i]

    with pytest.raises(OSError, match="the disk is gone"):
        run(Broken(), weights, store=first)
    assert first.finished_chunks() == {0, 1}
    partial = first.read_scores()
    np.testing.assert_array_equal(partial[:, :256], whole[:, :256])
    assert np.isnan(partial[:, 256:]).all()
    stop = len(rows)
    resumed = run(Broken(), weights, store=ScoreStore(tmp_path, spec()))
    assert resumed.num_rows == 1003 - 256
    np.testing.assert_array_equal(resumed.scores, whole)


def test_any_zarr_reader_opens_the_scores(rows, weights, tmp_path):
    import zarr

    found = run(rows, weights, store=ScoreStore(tmp_path, spec())).scores
    np.testing.assert_array_equal(zarr.open(tmp_path / "scores", mode="r")[:], found)


def test_processes_take_turns(rows, weights, tmp_path):
    for i in range(3):
        part = run(rows, weights, store=ScoreStore(tmp_path, spec()), process=(i, 3))
        assert part.num_rows < 1003
    np.testing.assert_array_equal(part.scores, run(rows, weights).scores)


def test_a_store_says_what_differs(tmp_path):
    ScoreStore(tmp_path, spec())
    with pytest.raises(InputError, match="it has other dtype, num_examples; choose another"):
        ScoreStore(tmp_path, spec(num_examples=5, dtype="float64"))
    with pytest.raises(InputError, match="holds no scores"):
        ScoreStore(tmp_path / "elsewhere")


def test_prefetch_keeps_order_raises_and_stops():
    assert list(prefetch(iter(range(50)), 3)) == list(range(50))

    def failing():
        yield 1
        raise ValueError("row 2 is broken")

    items = prefetch(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="row 2 is broken"):
        next(items)
    before = threading.active_count()
    endless = prefetch(iter(lambda: 0, 1))
    next(endless)
    endless.close()
    time.sleep(0.05)
    assert threading.active_count() == before


def test_progress_shows_rate_and_time_left(capsys):
    with track_rows("scoring", 10) as advance:
        advance(10)
    shown = capsys.readouterr().err
    assert "scoring" in shown
    assert "10/10" in shown
    assert "rows/s" in shown


def test_fingerprints():
    a = {"w": jnp.arange(3.0), "key": jax.random.key(1)}
    assert fingerprint(a) == fingerprint({"w": np.arange(3, dtype=np.float32), "key": a["key"]})
    assert fingerprint(a) != fingerprint(a | {"key": jax.random.key(2)})
    assert fingerprint(a) != fingerprint(a | {"w": jnp.arange(3)})
    make = lambda scale, const: lambda x: scale * x + const
    x = jnp.ones(3)
    same = program_fingerprint(make(2.0, jnp.zeros(3)), x)
    assert same == program_fingerprint(make(2.0, jnp.zeros(3)), x)
    assert same != program_fingerprint(make(2.5, jnp.zeros(3)), x)
    assert same != program_fingerprint(make(2.0, jnp.ones(3)), x)
