"""Does memory stay flat as the training set grows? Peak resident memory of whole runs.

    python -m benchmarks.memory [--quick]

Synthetic examples are generated when they are read, so that what is measured is the scoring run
and not the data. Each run is a process of its own: 16 queries against few and against many
examples, keeping the top 100 per query; and against many keeping all scores, for comparison.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, Worker, cores, serve, write_result

QUERIES, TOP_K, WIDTH, CLASSES = 16, 100, 64, 10


class Generated:
    """Examples computed from their row numbers: a source of any length that holds nothing."""

    def __init__(self, length: int):
        self._length = length
        rng = np.random.default_rng(0)
        self._frequencies = rng.uniform(0.1, 2.0, WIDTH)
        self._phases = rng.uniform(0, 2 * np.pi, WIDTH)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows `start` to `stop - 1`: x float32[n, 64], y int32[n]."""
        rows = np.arange(start, stop)
        x = np.sin(rows[:, None] * self._frequencies + self._phases)
        return {"x": x.astype(np.float32), "y": (rows % CLASSES).astype(np.int32)}


def work(config: dict[str, Any]) -> None:
    """Serve one run."""
    import jax

    from jaxinf import attribute
    from jaxinf.adapters import from_linen
    from jaxinf.influence import forward_inf
    from jaxinf.models import MLP, cross_entropy

    jax.config.update("jax_num_cpu_devices", config["cores"])

    def answer(rows: int, top_k: int | None, batch_size: int) -> dict[str, Any]:
        train = Generated(rows)
        queries = Generated(QUERIES).read(0, QUERIES)
        module = MLP((32,), CLASSES)
        variables = module.init(jax.random.key(0), queries["x"])
        loss_fn, params = from_linen(module, variables, cross_entropy)
        began = time.perf_counter()
        done = attribute(
            forward_inf(loss_fn),
            params,
            queries,
            train,
            batch_size=batch_size,
            top_k=top_k,
            progress=False,
            diagnostics=False,
        )
        kept = done.scores if top_k is None else done.top_scores
        assert kept is not None
        return {
            "seconds": time.perf_counter() - began,
            "kept_bytes": kept.nbytes,
            "devices": done.plan.num_devices,
            "device": jax.devices()[0].device_kind,
        }

    serve(answer)


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the examples, once")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.many, arguments.repeats = arguments.many // 10, 1
    runs = [(arguments.few, TOP_K), (arguments.many, TOP_K), (arguments.many, None)]
    results = []
    for _ in range(arguments.repeats):
        for rows, top_k in runs:
            with Worker("benchmarks.memory", {"cores": cores()}) as worker:
                reply = worker.ask(rows=rows, top_k=top_k, batch_size=arguments.batch_size)
            results.append({"rows": rows, "top_k": top_k} | reply)
            peak = reply["peak_bytes"] / 2**20
            print(f"{rows} rows, top_k={top_k}: peak {peak:.0f} MiB", file=sys.stderr, flush=True)
    settings = {
        "queries": QUERIES,
        "top_k": TOP_K,
        "batch_size": arguments.batch_size,
        "repeats": arguments.repeats,
        "quick": arguments.quick,
        "device": results[0]["device"],
    }
    write_result(arguments.output / "memory.json", settings, results)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
    else:
        main()
