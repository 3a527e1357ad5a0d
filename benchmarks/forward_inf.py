"""Forward-INF side by side: jaxinf, the paper's released PyTorch loop, and a tuned one.

    python -m benchmarks.forward_inf [--models mlp,resnet18] [--queries 1,8,64] [--quick]

Same weights, same examples, same step, one machine, one run. Every contender is a process of its
own; all of a model's contenders stay alive, and their repetitions alternate (A B A B ...), so
that whatever else the machine does meets all of them. Scores must agree before anything is
written. What is timed is the scoring of the training examples; the steps on the queries and
compilation are listed apart.
"""

import argparse
import importlib.util
import itertools
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, Worker, cores, spread, write_result
from benchmarks.workloads import FULL, QUICK, Workload

MAIN = ("torch_released", "torch_tuned", "jaxinf", "jaxinf_one_device")
EXTRA = ("jaxinf_jvp", "jaxinf_gradients")
# the loop does the same for each query: a few of them give its rate
RELEASED_QUERIES = 4
TOLERANCE = 1e-3


def measure(
    workload: Workload, query_counts: list[int], repeats: int, quick: bool
) -> list[dict[str, Any]]:
    """Time every contender on one model, for every K; check that their scores agree."""
    found = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = {
            "workload": workload.name,
            "quick": quick,
            "folder": folder,
            "cores": cores(),
            "rows": max(workload.extra_rows, *(workload.rows(k) for k in query_counts)),
            "queries": max(query_counts),
        }
        with Worker("benchmarks.jax_contenders", config | {"contender": "inputs"}):
            pass
        workers = {}
        for name in MAIN + EXTRA:
            module = f"benchmarks.{name.split('_')[0].removesuffix('inf')}_contenders"
            workers[name] = stack.enter_context(Worker(module, config | {"contender": name}))
        for queries in query_counts:
            plan = {name: _size(workload, name, queries) for name in workers}
            sizes = {name: size for name, size in plan.items() if size is not None}
            for name, (count, rows) in sizes.items():
                workers[name].ask(queries_count=count, rows=rows, warm_up=True)
            replies: dict[str, list[dict[str, Any]]] = {name: [] for name in sizes}
            for _, name in itertools.product(range(repeats), sizes):
                count, rows = sizes[name]
                reply = workers[name].ask(queries_count=count, rows=rows)
                replies[name].append(reply)
                _say(f"{workload.name} K={queries} {name}: {reply['seconds']:.2f} s")
            errors = _disagreements(Path(folder), queries, list(sizes))
            flops = replies["torch_released"][0]["flops_per_row"]
            for name, (count, rows) in sizes.items():
                found.append(
                    _summary(workload.name, queries, name, count, rows, replies[name])
                    | {"relative_error": errors[name], "forward_flops_per_row": flops}
                )
    return found


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    arguments = _parse()
    if importlib.util.find_spec("torch") is None:
        sys.exit("PyTorch is needed to compare with: pip install 'jaxinf[torch]'")
    results: list[dict[str, Any]] = []
    for workload in QUICK if arguments.quick else FULL:
        if workload.name not in arguments.models:
            continue
        counts = arguments.queries or sorted(workload.num_rows)
        results += measure(workload, sorted(counts), arguments.repeats, arguments.quick)
        # after each model: what was measured is not lost if the next one is killed
        _write(arguments, results)


def _write(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    device = next(r["device"] for r in results if r["contender"] == "jaxinf")
    slug = "".join(c if c.isalnum() else "-" for c in device.lower())
    settings = {
        "repeats": arguments.repeats,
        "quick": arguments.quick,
        "released_queries": RELEASED_QUERIES,
        "device": device,
    }
    # some of the models get a file of their own beside that of all
    part = (
        "" if set(arguments.models) >= {w.name for w in FULL} else "_" + "_".join(arguments.models)
    )
    write_result(arguments.output / f"forward_inf_{slug}{part}.json", settings, results)


def _size(workload: Workload, name: str, queries: int) -> tuple[int, int] | None:
    if name in EXTRA:
        wanted = queries in workload.extra_queries
        return (queries, workload.extra_rows) if wanted else None
    rows = workload.rows(queries)
    return (min(queries, RELEASED_QUERIES) if name == "torch_released" else queries), rows


def _disagreements(folder: Path, queries: int, names: list[str]) -> dict[str, float]:
    """Norm-wise relative difference of each contender's scores from the released loop's.

    Finite steps must agree with it, and the two first-order forms with each other.
    """
    counts = dict.fromkeys(names, queries)
    counts["torch_released"] = min(queries, RELEASED_QUERIES)
    scores = {name: np.load(folder / f"{name}-{counts[name]}.npy") for name in names}
    errors: dict[str, float] = {}
    for name in names:
        against = "torch_released" if name in MAIN else EXTRA[0]
        error = errors[name] = _relative_error(scores[name], scores[against])
        if not error <= TOLERANCE:  # NaN fails too
            sys.exit(
                f"scores of {name} differ from those of {against} by {error:.1e} "
                f"(norm-wise, allowed {TOLERANCE:g}): what is timed is not the same computation"
            )
    return errors


def _relative_error(scores: np.ndarray, reference: np.ndarray) -> float:
    common = tuple(slice(0, min(a, b)) for a, b in zip(scores.shape, reference.shape, strict=True))
    difference = np.linalg.norm(scores[common] - reference[common])
    return float(difference / np.linalg.norm(reference[common]))


def _summary(
    model: str, queries: int, name: str, count: int, rows: int, replies: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = [reply["seconds"] for reply in replies]
    accelerator = [reply["device_peak_bytes"] for reply in replies if reply["device_peak_bytes"]]
    return {
        "model": model,
        "queries": queries,
        "contender": name,
        "rows": rows,
        "queries_timed": count,
        "seconds": spread(seconds),
        "seconds_per_pair": spread([s / (count * rows) for s in seconds]),
        "prepare_seconds": spread([reply["prepare_seconds"] for reply in replies]),
        "compile_seconds": replies[0]["compile_seconds"],
        # asked for in order of K, so the peak so far is that of this K
        "peak_bytes": max(reply["peak_bytes"] for reply in replies),
        "device_peak_bytes": max(accelerator, default=None),
        "product_flops": max(reply["product_flops"] for reply in replies),
        "device": replies[0]["device"],
        "notes": replies[0]["notes"],
        "tried": replies[0].get("tried", {}),
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [workload.name for workload in FULL]
    parser.add_argument(
        "--models", type=lambda s: s.split(","), default=names, help="of " + ", ".join(names)
    )
    parser.add_argument(
        "--queries", type=lambda s: [int(k) for k in s.split(",")], help="K, such as 1,8,64"
    )
    parser.add_argument("--repeats", type=int, default=3, help="alternating repetitions")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.models) - set(names))
    if unknown:
        parser.error(f"unknown models {', '.join(unknown)}: choose of {', '.join(names)}")
    if arguments.repeats < 1 or any(k < 1 for k in arguments.queries or []):
        parser.error("--repeats and --queries must be at least 1")
    return arguments


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
