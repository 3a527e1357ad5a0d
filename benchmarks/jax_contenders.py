"""The jaxinf side of `benchmarks.forward_inf`: a worker that scores through the public API."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks.common import serve
from benchmarks.workloads import CLASSES, VOCABULARY, Workload, find
from jaxinf import attribute, models
from jaxinf.adapters import from_linen
from jaxinf.engine import data_mesh
from jaxinf.engine.mesh import Mesh, data_parallel, replicate, split_rows
from jaxinf.influence import Attributor, forward_inf, forward_inf_jvp, grad_dot
from jaxinf.influence.queries import as_groups


def make_inputs(workload: Workload, folder: Path, num_rows: int, num_queries: int) -> None:
    """Draw weights, training examples and queries, and save them for all contenders."""
    rng = np.random.default_rng(0)
    shape = (num_rows + num_queries, *workload.example_shape)
    if workload.tokens:
        data = {"x": rng.integers(0, VOCABULARY, shape, dtype=np.int32)}
    else:
        data = {
            "x": rng.normal(size=shape).astype(np.float32),
            "y": rng.integers(0, CLASSES, shape[0], dtype=np.int32),
        }
    module = getattr(models, workload.model)(**workload.sizes)
    variables = jax.jit(module.init)(jax.random.key(0), data["x"][:1])
    weights = {path: np.asarray(a) for path, a in flatten_dict(variables, sep="/").items()}
    for path in [path for path in weights if path.startswith("batch_stats")]:
        # statistics of a trained network are not 0 and 1
        spread = rng.uniform(0.5, 1.5, weights[path].shape)
        weights[path] = (spread - (path.endswith("mean"))).astype(np.float32)
    parts: dict[str, Any] = {
        "weights": weights,
        "train": {key: a[:num_rows] for key, a in data.items()},
        "queries": {key: a[num_rows:] for key, a in data.items()},
    }
    for part, arrays in parts.items():
        np.savez(folder / f"{part}.npz", **arrays)


def method(name: str, loss_fn: Any, learning_rate: float) -> Attributor:
    """The attributor that a contender runs."""
    step = optax.sgd(learning_rate)
    if name == "jaxinf_jvp":
        return forward_inf_jvp(loss_fn, optimizer=step, scorer="jvp")
    if name == "jaxinf_gradients":
        return grad_dot(loss_fn, scorer="gradients")
    return forward_inf(loss_fn, optimizer=step)


def large_product(mesh: Mesh) -> float:
    """FLOP/s of a large float32 matrix product over the mesh, the most that XLA gets here."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    with jax.default_matmul_precision("highest"):
        product = data_parallel(lambda right, left: left @ right, mesh)
        rows = split_rows(np.ones((side, side), np.float32), mesh)
        right = replicate(np.ones((side, side), np.float32), mesh)
        jax.block_until_ready(product(right, rows))
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            jax.block_until_ready(product(right, rows))
            seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def main(config: dict[str, Any]) -> None:
    """Serve one contender on one workload."""
    folder, name = Path(config["folder"]), config["contender"]
    workload = find(config["workload"], config["quick"])
    if name == "inputs":
        make_inputs(workload, folder, config["rows"], config["queries"])
        return
    # repetitions run the same programs: only the first one compiles, and only its time is kept
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if name != "jaxinf_one_device":
        jax.config.update("jax_num_cpu_devices", config["cores"])
    module = getattr(models, workload.model)(**workload.sizes)
    with np.load(folder / "weights.npz") as saved:
        variables = unflatten_dict({tuple(path.split("/")): saved[path] for path in saved})
    # on the device before any clock starts, as the peers' weights are
    variables = jax.device_put(variables)
    loss = models.next_token_cross_entropy if workload.tokens else models.cross_entropy
    loss_fn, params = from_linen(module, variables, loss, train=False)
    train, queries = (dict(np.load(folder / f"{part}.npz")) for part in ("train", "queries"))
    mesh = data_mesh(jax.local_devices()[:1] if name == "jaxinf_one_device" else None)
    attributor = method(name, loss_fn, workload.learning_rate)

    def answer(queries_count: int, rows: int, warm_up: bool = False) -> dict[str, Any]:
        few = {key: a[:queries_count] for key, a in queries.items()}
        many = {key: a[:rows] for key, a in train.items()}
        if warm_up:
            jax.block_until_ready(attributor.prepare(params, as_groups(few)))
            return {}
        began = time.perf_counter()
        jax.block_until_ready(attributor.prepare(params, as_groups(few)))
        prepared = time.perf_counter() - began
        done = attribute(
            attributor,
            params,
            few,
            many,
            batch_size=workload.batch_size,
            mesh=mesh,
            progress=False,
            diagnostics=False,
        )
        assert done.scores is not None
        scores = done.scores
        if name == "jaxinf_gradients":
            scores = workload.learning_rate * scores  # what one small step of SGD tends to
        np.save(folder / f"{name}-{queries_count}.npy", scores)
        memory = jax.local_devices()[0].memory_stats() or {}
        return {
            "seconds": done.plan.run_seconds,
            "compile_seconds": done.plan.compile_seconds,
            "prepare_seconds": prepared,
            "device_peak_bytes": memory.get("peak_bytes_in_use"),
            "product_flops": large_product(mesh),
            "device": jax.local_devices()[0].device_kind,
            "notes": f"{done.plan.num_devices} device(s) of platform {jax.default_backend()}",
        }

    serve(answer)


if __name__ == "__main__":
    # contenders share an accelerator: none may take its whole memory beforehand
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    main(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
