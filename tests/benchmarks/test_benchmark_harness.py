import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.common import ROOT, peak_memory, spread, write_result
from benchmarks.forward_inf import _disagreements
from benchmarks.jax_contenders import make_inputs
from benchmarks.memory import Generated
from benchmarks.workloads import QUICK
from jaxinf import models


def test_result_holds_machine_versions_and_raw_timings(tmp_path):
    write_result(tmp_path / "x.json", {"repeats": 3}, [spread([3.0, 1.0, 2.0])])
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["results"] == [{"median": 2.0, "min": 1.0, "max": 3.0, "raw": [3.0, 1.0, 2.0]}]
    assert document["machine"]["cores"] >= 1
    assert document["versions"]["jax"] == jax.__version__


def test_peak_memory_sees_what_was_allocated():
    before = peak_memory()
    block = np.ones(before // 8 + (64 << 20) // 8)
    assert peak_memory() >= block.nbytes


def test_generated_rows_do_not_depend_on_the_slice():
    source = Generated(100)
    whole = source.read(0, 100)
    assert len(source) == 100
    np.testing.assert_array_equal(whole["x"][7:9], source.read(7, 9)["x"])
    np.testing.assert_array_equal(whole["y"][7:9], source.read(7, 9)["y"])


@pytest.mark.parametrize("workload", QUICK, ids=lambda workload: workload.name)
def test_twins_compute_the_same_losses(tmp_path, workload):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_models
    from benchmarks.torch_contenders import _tensors, build
    from jaxinf.adapters import from_linen

    make_inputs(workload, tmp_path, num_rows=4, num_queries=1)
    weights, batch = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("weights", "train"))
    variables = {}
    for path, array in weights.items():
        at = variables
        *parents, leaf = path.split("/")
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = array
    kind = "next_token_cross_entropy" if workload.tokens else "cross_entropy"
    module = getattr(models, workload.model)(**workload.sizes)
    loss_fn, params = from_linen(module, variables, getattr(models, kind), train=False)
    twin = torch_models.load_flax(build(workload), weights)
    tensors = _tensors(batch, "cpu")
    with torch.inference_mode():
        theirs = getattr(torch_models, kind)(twin(tensors["x"]), tensors).numpy()
    np.testing.assert_allclose(np.asarray(loss_fn(params, batch)), theirs, rtol=1e-5)


def test_disagreeing_scores_stop_the_benchmark(tmp_path):
    np.save(tmp_path / "torch_released-2.npy", np.ones((2, 3)))
    np.save(tmp_path / "jaxinf-2.npy", np.ones((2, 3)) + 1e-5)
    names = ["torch_released", "jaxinf"]
    assert _disagreements(tmp_path, 2, names)["jaxinf"] == pytest.approx(1e-5, rel=1e-6)
    np.save(tmp_path / "jaxinf-2.npy", 1.01 * np.ones((2, 3)))
    with pytest.raises(SystemExit, match="scores of jaxinf differ"):
        _disagreements(tmp_path, 2, names)


def test_without_torch_one_line_says_what_to_install(tmp_path):
    # a finder that knows no torch stands for an installation without it
    code = (
        "import importlib.util as u, sys; found = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'torch' else found(name, *a);"
        "sys.argv = ['forward_inf', '--quick'];"
        "from benchmarks.forward_inf import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "PyTorch is needed to compare with: pip install 'jaxinf[torch]'"


@pytest.mark.slow
def test_forward_inf_benchmark_runs_and_agrees(tmp_path):
    pytest.importorskip("torch")
    _run("forward_inf", tmp_path, "--models", "mlp", "--queries", "1,2", "--repeats", "1")
    (file,) = tmp_path.glob("forward_inf_*.json")
    rows = json.loads(file.read_text())["results"]
    finite = {"torch_released", "torch_tuned", "jaxinf", "jaxinf_one_device"}
    assert {row["contender"] for row in rows} == finite | {"jaxinf_jvp", "jaxinf_gradients"}
    assert {row["queries"] for row in rows} == {1, 2}
    assert all(row["relative_error"] <= 1e-3 for row in rows)
    assert all(row["peak_bytes"] > 0 and row["seconds"]["min"] > 0 for row in rows)


@pytest.mark.slow
def test_leakage_benchmark_runs(tmp_path):
    _run("leakage", tmp_path, "--model", "mlp", "--no-progress")
    results = json.loads((tmp_path / "leakage_mlp.json").read_text())["results"]
    top1 = {row["method"]: row["top1"]["estimate"] for row in results["methods"]}
    # an exact copy has no nearer neighbour than its source
    assert top1["pixels, nearest neighbour"] == 1.0
    assert {"released recipe", "JVP / loss", "grad_cos"} <= set(top1)


@pytest.mark.slow
def test_memory_benchmark_runs(tmp_path):
    _run("memory", tmp_path, "--few", "2000", "--many", "40000")
    rows = json.loads((tmp_path / "memory.json").read_text())["results"]
    assert [(row["rows"], row["top_k"]) for row in rows] == [(2000, 100), (4000, 100), (4000, None)]
    assert rows[2]["kept_bytes"] == 16 * 4000 * 4


def _run(name, folder, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--output", str(folder)]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True, timeout=600)
