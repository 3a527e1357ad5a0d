"""The same scores on 1, 2 and 8 devices, for every batch size, by both ways through."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from problems import make_problem, relative

from jaxinf import attribute
from jaxinf.engine import as_source, data_mesh, data_parallel, replicate, split_rows
from jaxinf.influence import forward_inf, grad_cos, grad_dot

FLOAT32 = 1e-5


def meshes(*sizes):
    return [data_mesh(jax.devices()[:size]) for size in sizes]


def long_step(loss_fn):
    """A step that lifts the change of the losses well above their rounding."""
    return forward_inf(loss_fn, optimizer=optax.sgd(0.3))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mlp", long_step),
        ("cnn", long_step),
        pytest.param("transformer", long_step, marks=pytest.mark.slow),
        ("mlp", grad_cos),
    ],
)
def test_devices_and_batch_sizes(name, make):
    problem = make_problem(name)
    method = make(problem.loss_fn)
    run = lambda **kwargs: attribute(method, *problem[1:], progress=False, **kwargs)
    one = run(mesh=meshes(1)[0], batch_size=37).scores
    for mesh, batch_size in zip(meshes(2, 8), (12, 16), strict=True):
        assert relative(run(mesh=mesh, batch_size=batch_size).scores, one) < FLOAT32


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_pmap_gives_the_same_numbers(name):
    problem = make_problem(name)
    method = long_step(problem.loss_fn)
    by_shard_map, by_pmap = (
        attribute(method, *problem[1:], batch_size=16, parallel=way, progress=False)
        for way in ("shard_map", "pmap")
    )
    assert relative(by_pmap.scores, by_shard_map.scores) < 1e-6
    assert by_pmap.plan.parallel == "pmap"


@pytest.mark.parametrize("way", ["shard_map", "pmap"])
def test_top_k_is_the_sorted_scores(mlp, way):
    method = grad_dot(mlp.loss_fn)
    full = attribute(method, *mlp[1:], progress=False).scores
    for mesh in meshes(1, 8):
        kept = attribute(
            method, *mlp[1:], top_k=5, batch_size=8, mesh=mesh, parallel=way, progress=False
        )
        assert kept.scores is None
        order = np.argsort(-full, axis=1)
        np.testing.assert_array_equal(kept.top_indices, order[:, :5])
        np.testing.assert_array_equal(kept.bottom_indices, order[:, ::-1][:, :5])
        assert relative(kept.top_scores, -np.sort(-full, axis=1)[:, :5]) < FLOAT32
        assert relative(kept.bottom_scores, np.sort(full, axis=1)[:, :5]) < FLOAT32


def test_no_collective_in_the_scoring_program(mlp):
    """Rows are independent: devices have nothing to say to one another."""
    mesh = data_mesh()
    for make in (forward_inf, grad_cos):
        method = make(mlp.loss_fn)
        state = replicate(method.prepare(mlp.params, mlp.queries), mesh)
        rows = split_rows(as_source(mlp.train).read(0, 32), mesh)
        text = data_parallel(method.score, mesh).lower(state, rows).compile().as_text()
        for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
            assert collective not in text


def test_per_example_gradients_survive_shard_map(mlp):
    """With `check_vma=True` the gradients of replicated parameters are summed over devices."""
    mesh = data_mesh()
    x, w = jnp.arange(16.0).reshape(8, 2), jnp.array([1.0, -2.0])
    gradient = lambda w, x: jax.vmap(lambda row: jax.grad(lambda w: (row @ w) ** 2)(w))(x)
    found = data_parallel(gradient, mesh)(w, split_rows(x, mesh))
    np.testing.assert_allclose(np.asarray(found).reshape(8, 2), 2 * (x @ w)[:, None] * x, rtol=1e-6)
    trap = jax.shard_map(
        gradient,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )(w, x)
    assert relative(trap, 2 * (x @ w)[:, None] * x) > 0.1, "mended in jax: the guard can go"


def test_params_sharded_over_another_axis(mlp):
    """A mesh of 4 × 2: examples over `data`, the first layer's columns over `model`."""
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
    split = NamedSharding(mesh, PartitionSpec(None, "model"))
    place = lambda p: jax.device_put(p, split) if p.ndim == 2 and p.shape[1] % 2 == 0 else p
    params = jax.tree.map(place, mlp.params)
    method = grad_dot(mlp.loss_fn)
    one = attribute(method, *mlp[1:], mesh=meshes(1)[0], progress=False).scores
    found = attribute(method, params, *mlp[2:], mesh=mesh, progress=False).scores
    assert relative(found, one) < FLOAT32


def test_two_processes_share_the_chunks(tmp_path):
    """`jax.distributed` on one machine: each scores its own chunks, the store has them all."""
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import jax
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 2)
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        sys.path.insert(0, sys.argv[3])
        from problems import make_problem
        from jaxinf import attribute
        from jaxinf.influence import grad_dot
        problem = make_problem("mlp")
        for top_k, name in ((None, "full"), (4, "top")):
            attribute(grad_dot(problem.loss_fn), *problem[1:], batch_size=4, chunk_size=8,
                      store=f"{sys.argv[4]}/{name}", top_k=top_k, progress=False)
        """)
    )
    import socket
    from pathlib import Path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = str(Path(__file__).parent)
    workers = [
        subprocess.Popen(
            [sys.executable, script, f"127.0.0.1:{port}", str(i), here, str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors[-2000:]
    from jaxinf.engine import ScoreStore

    mlp = make_problem("mlp")
    expected = attribute(grad_dot(mlp.loss_fn), *mlp[1:], progress=False).scores
    store = ScoreStore(tmp_path / "full")
    assert store.finished_chunks() == set(range(5))
    assert relative(store.read_scores(), expected) < FLOAT32
    top, bottom = ScoreStore(tmp_path / "top").merged_topk()
    order = np.argsort(-expected, axis=1)
    np.testing.assert_array_equal(top.rows, order[:, :4])
    np.testing.assert_array_equal(bottom.rows, order[:, ::-1][:, :4])
