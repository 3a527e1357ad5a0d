"""Is the memory of the streamed route linear in n + m? Peak resident memory of whole `lava` runs.

    python -m benchmarks.lava_memory [--sizes 50000,100000,200000] [--solvers annealed] [--quick]

Clustered features, a fifth of the labels wrong; each run is a process of its own. The cost of the
largest, held in memory with its exponential, would take 3.2 GB on its own. Rows of the output that
another run on as many cores has measured are kept.
"""

import argparse
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

VALID, WIDTH, CLASSES = 2000, 64, 10


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

    def answer(rows: int, solver: str) -> dict[str, Any]:
        x, y = labelled(rows, seed=1)
        xv, yv = labelled(VALID, seed=2)
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
    parser.add_argument("--sizes", default="50000,100000,200000")
    parser.add_argument("--solvers", default="annealed,balanced")
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 rows")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_memory.json")
    arguments = parser.parse_args()
    sizes = "2000,4000" if arguments.quick else arguments.sizes
    settings = {"valid": VALID, "width": WIDTH, "classes": CLASSES, "cores": cores()}
    settings |= {"quick": arguments.quick}
    solvers = arguments.solvers.split(",")
    alike = read_settings(arguments.output) == settings
    results = read_results(arguments.output) if alike else []
    results = [row for row in results if row["solver"] not in solvers]
    for solver in solvers:
        for rows in map(int, sizes.split(",")):
            with Worker("benchmarks.lava_memory", {"cores": cores()}) as worker:
                reply = worker.ask(rows=rows, solver=solver)
            results.append({"rows": rows, "solver": solver} | reply)
            peak = reply["peak_bytes"] / 2**20
            print(f"{rows} rows, {solver}: {peak:.0f} MiB, {reply['seconds']:.1f} s", flush=True)
            write_result(arguments.output, settings, results)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
    else:
        main()
