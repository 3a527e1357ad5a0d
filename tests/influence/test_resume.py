"""A run killed in the middle goes on where it stopped, and gives the same bits."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxinf import InputError, attribute
from jaxinf.engine import ScoreStore
from jaxinf.influence import forward_inf, grad_dot

WORKER = textwrap.dedent("""
    import sys, time
    import jax
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    from problems import make_problem
    from jaxinf import attribute
    from jaxinf.influence import forward_inf

    class Slow:
        \"\"\"Rows that take their time, so that there is a middle to be killed in.\"\"\"

        def __init__(self, rows, delay):
            self.rows, self.delay = rows, delay

        def __len__(self):
            return len(self.rows["y"])

        def __getitem__(self, i):
            time.sleep(self.delay)
            return {key: column[i] for key, column in self.rows.items()}

    problem = make_problem("cnn", num_train=200)
    found = attribute(
        forward_inf(problem.loss_fn), problem.params, problem.queries,
        Slow(problem.train, float(sys.argv[3])), batch_size=8, chunk_size=16, progress=False,
        store=sys.argv[2] or None, top_k=int(sys.argv[4]) or None,
    )
    np.savez(sys.argv[5], rows=found.plan.rows_scored, **{
        name: np.asarray(getattr(found, name))
        for name in ("scores", "top_scores", "top_indices", "bottom_scores", "bottom_indices")
        if getattr(found, name) is not None
    })
""")


@pytest.mark.parametrize("top_k", [0, pytest.param(7, marks=pytest.mark.slow)])
def test_kill_and_resume_to_the_bit(tmp_path, top_k):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    store = tmp_path / "store"

    def start(folder, delay, out):
        command = [sys.executable, script, Path(__file__).parent, folder, delay, top_k, out]
        return subprocess.Popen([str(part) for part in command])

    whole = start("", 0, tmp_path / "whole.npz")
    assert whole.wait(timeout=300) == 0

    killed = start(store, 0.03, tmp_path / "never.npz")
    begun = (
        (lambda: (store / "topk-0.npz").exists())
        if top_k
        else (lambda: store.exists() and ScoreStore(store).finished_chunks())
    )
    deadline = time.monotonic() + 300
    while not ((store / "spec.json").exists() and begun()):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "never.npz").exists()

    resumed = start(store, 0, tmp_path / "resumed.npz")
    assert resumed.wait(timeout=300) == 0
    with np.load(tmp_path / "whole.npz") as a, np.load(tmp_path / "resumed.npz") as b:
        assert 0 < int(b["rows"]) < int(a["rows"]) == 200
        for name in set(a.files) - {"rows"}:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_finished_run_is_only_read(mlp, tmp_path):
    run = lambda **kw: attribute(
        grad_dot(mlp.loss_fn), *mlp[1:], store=tmp_path / "s", batch_size=8, progress=False, **kw
    )
    first, second = run(), run()
    assert (first.plan.rows_scored, second.plan.rows_scored) == (37, 0)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_an_iterable_resumes_too(mlp, tmp_path):
    def batches():
        for start in range(0, 37, 5):
            yield {key: column[start : start + 5] for key, column in mlp.train.items()}

    run = lambda top_k: attribute(
        grad_dot(mlp.loss_fn),
        *mlp[1:3],
        batches(),
        store=tmp_path / f"s{top_k}",
        batch_size=8,
        top_k=top_k,
        progress=False,
    )
    whole = attribute(grad_dot(mlp.loss_fn), *mlp[1:], batch_size=8, progress=False).scores
    for _ in range(2):
        np.testing.assert_array_equal(run(None).scores, whole)
        order = np.argsort(-whole, axis=1, kind="stable")[:, :3]
        np.testing.assert_array_equal(run(3).top_indices, order)


@pytest.mark.parametrize("changed", ["params", "queries", "train", "program", "batch_size"])
def test_a_store_of_another_run_is_refused(mlp, tmp_path, changed):
    run = lambda method, problem, batch_size=8: attribute(
        method, *problem[1:], store=tmp_path / "s", batch_size=batch_size, progress=False
    )
    run(forward_inf(mlp.loss_fn), mlp)
    bump = lambda tree: jax.tree.map(
        lambda a: a + a.dtype.type(1) if a.dtype.kind == "f" else a, tree
    )
    method, problem, batch_size = forward_inf(mlp.loss_fn), mlp, 8
    if changed in ("params", "queries", "train"):
        problem = mlp._replace(**{changed: bump(getattr(mlp, changed))})
    elif changed == "program":
        method = forward_inf(mlp.loss_fn, optimizer=optax.sgd(0.5))
    else:
        batch_size = 16
    with pytest.raises(InputError, match=f"belongs to another run: it has other .*{changed}"):
        run(method, problem, batch_size)


def test_a_folder_that_is_no_store_is_refused(mlp, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is not empty and is no score store"):
        attribute(grad_dot(mlp.loss_fn), *mlp[1:], store=tmp_path, progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
