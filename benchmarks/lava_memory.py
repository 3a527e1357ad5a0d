"""Is the memory of the streamed route linear in n + m? Peak resident memory of whole `lava` runs.

    python -m benchmarks.lava_memory [--sizes 50000,200000] [--valid 2000] [--solvers annealed]

Clustered features, a fifth of the labels wrong; each run is a process of its own. The cost of the
largest, held in memory with its exponential, would take 3.2 GB on its own. Rows of the output of
other sizes, measured on as many cores, are kept.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    RESULTS,
    Worker,
    cores,
    read_results,
    read_settings,
    serve,
    write_result,
)

WIDTH, CLASSES = 64, 10


def labelled(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32[rows, 64] around the centre of each label, int32[rows]."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH)).astype(np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=rows).astype(np.int32)
    features = rng.standard_normal((rows, WIDTH), np.float32)
    features += centres[labels]
    return features, labels


def work(config: dict[str, Any]) -> None:
    """Serve one run."""
    import jax

    jax.config.update("jax_num_cpu_devices", config["cores"])
    from jaxinf.engine.mesh import data_mesh
    from jaxinf.evaluation import detection_auc
    from jaxinf.valuation import lava

    def answer(rows: int, valid: int, solver: str) -> dict[str, Any]:
        x, y = labelled(rows, seed=1)
        xv, yv = labelled(valid, seed=2)
        is_bad = np.arange(rows) < rows // 5
        y[is_bad] = (y[is_bad] + 1) % CLASSES
        began = time.perf_counter()
        found = lava(x, y, xv, yv, solver=solver, route="streamed", num_checks=0, mesh=data_mesh())
        values = np.asarray(found.values)
        return {
            "seconds": time.perf_counter() - began,
            "auroc": float(detection_auc(-values, is_bad)),
            "converged": bool(found.converged),
            "iterations": int(found.num_iterations),
        }

    serve(answer)


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="50000,100000,200000", help="training examples")
    parser.add_argument("--valid", default="2000", help="validation examples, each with each size")
    parser.add_argument("--solvers", default="annealed,balanced")
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 rows")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_memory.json")
    arguments = parser.parse_args()
    sizes = "2000,4000" if arguments.quick else arguments.sizes
    settings = {"width": WIDTH, "classes": CLASSES, "cores": cores(), "quick": arguments.quick}
    alike = read_settings(arguments.output) == settings
    results = {_key(row): row for row in read_results(arguments.output)} if alike else {}
    runs = itertools.product(
        arguments.solvers.split(","),
        map(int, sizes.split(",")),
        map(int, arguments.valid.split(",")),
    )
    for solver, rows, valid in runs:
        asked = {"rows": rows, "valid": valid, "solver": solver}
        with Worker("benchmarks.lava_memory", {"cores": cores()}) as worker:
            reply = asked | worker.ask(**asked)
        results[_key(reply)] = reply
        peak = reply["peak_bytes"] / 2**20
        print(f"{rows} x {valid}, {solver}: {peak:.0f} MiB, {reply['seconds']:.1f} s", flush=True)
        write_result(arguments.output, settings, [results[key] for key in sorted(results)])


def _key(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["solver"], row["valid"], row["rows"]


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
    else:
        main()
