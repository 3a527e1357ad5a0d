"""Throughput of CLIP beside PyTorch: pairs per second of plain encoding, and of AEA with 24 views.

    python -m benchmarks.clip [--architecture base-32] [--tasks encode,aea] [--batch-size 64]
                           [--repeats 5] [--quick]

The peer is transformers' CLIPModel in inference mode, eager and compiled, in float32 on a CPU and
in bfloat16 on a GPU. Its random weights are saved and loaded by jaxinf, and the features must agree
before anything is written. In AEA, jaxinf draws and makes the views within its compiled program;
the peer is handed views made beforehand, and so does only the encoder's part of the work.
Inputs lie on the device. Every contender is a process of its own; repetitions alternate. With
`--tasks`, one run can measure one task, and the file keeps what another run measured of the other.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clip_contenders import (
    ARCHITECTURES,
    CONTEXT,
    VIEWS,
    VOCABULARY,
    work_jaxinf,
    work_torch,
)
from benchmarks.common import RESULTS, Worker, cores, spread, write_result

# features in bfloat16 on two libraries differ by this much at most, on vectors of unit norm
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


def flops_per_image(name: str) -> float:
    """Floating-point operations of one image, two for a multiplication with its addition."""
    size, patch, (width, layers, _), _, embed = ARCHITECTURES[name]
    tokens = (size // patch) ** 2 + 1
    return 2.0 * (tokens * 3 * patch**2 * width + embed * width) + _stack(tokens, width, layers)


def flops_per_text(name: str) -> float:
    """The same of one caption at the full context."""
    *_, (width, layers, _), embed = ARCHITECTURES[name]
    return 2.0 * embed * width + _stack(CONTEXT, width, layers)


def _stack(tokens: int, width: int, layers: int) -> float:
    return 2.0 * layers * (12 * tokens * width**2 + 2 * tokens**2 * width)


def make_inputs(folder: Path, name: str, batch_size: int) -> None:
    """Random images in bytes and tokens, the same for all."""
    rng = np.random.default_rng(0)
    size = ARCHITECTURES[name][0]
    tokens = rng.integers(1, VOCABULARY - 2, (batch_size, CONTEXT))
    tokens[:, 0], tokens[:, -1] = VOCABULARY - 2, VOCABULARY - 1
    np.savez(
        folder / "inputs.npz",
        images=rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
        tokens=tokens.astype(np.int32),
    )


def main() -> None:
    """Run all contenders side by side and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", default="base-32", choices=list(ARCHITECTURES))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--view-batch", type=int, help="pairs whose views go together")
    parser.add_argument("--precision", default="float32", choices=list(TOLERANCE))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1, help="timed together in a repetition")
    parser.add_argument("--tasks", default="encode,aea")
    parser.add_argument("--eager-only", action="store_true", help="no torch.compile")
    parser.add_argument("--quick", action="store_true", help="a tiny model, eager, twice")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.architecture, arguments.batch_size = "tiny", 16
        arguments.repeats, arguments.eager_only = 2, True
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_inputs(Path(folder), arguments.architecture, arguments.batch_size)
        config = {
            "folder": folder,
            "architecture": arguments.architecture,
            "precision": arguments.precision,
            "view_batch": arguments.view_batch,
            "cores": cores(),
        }
        start = lambda kind, **more: stack.enter_context(
            Worker("benchmarks.clip", config | {"kind": kind, **more})
        )
        contenders = {"transformers": start("torch", compiled=False)}
        reference = contenders["transformers"].ask(task="features")["features"]
        if not arguments.eager_only:
            contenders["transformers, compiled"] = start("torch", compiled=True)
        contenders["jaxinf"] = start("jaxinf")
        error = _largest_error(contenders["jaxinf"].ask(task="features")["features"], reference)
        if error > TOLERANCE[arguments.precision]:
            sys.exit(f"features differ by {error:.1e}: nothing is written")
        measured = contenders["jaxinf"].ask(task="peak")
        peak, device = measured["flops"], measured["device"]
        torch_peak = contenders["transformers"].ask(task="peak")["flops"]
        results = _measure(contenders, arguments, peak)
    settings = {
        "architecture": arguments.architecture,
        "quick": arguments.quick,
        "device": device,
        "cores": cores(),
        "views": VIEWS,
        "matmul_peak_flops": peak,
        "torch_matmul_peak_flops": torch_peak,
        "feature_difference": error,
    }
    name = f"clip_{'gpu' if device != 'cpu' else 'cpu'}_{arguments.precision}.json"
    path = arguments.output / name
    write_result(path, settings, [*_other_tasks(path, settings, results), *results])


def _measure(contenders: dict[str, Worker], arguments: Any, peak: float) -> list[dict[str, Any]]:
    image, text = flops_per_image(arguments.architecture), flops_per_text(arguments.architecture)
    work = {"encode": image + text, "aea": (1 + VIEWS) * image + text}
    results = []
    for task in arguments.tasks.split(","):
        first = {name: worker.ask(task=task)["seconds"] for name, worker in contenders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.repeats):
            for name, worker in contenders.items():
                seconds[name].append(worker.ask(task=task, calls=arguments.calls)["seconds"])
        for name, taken in seconds.items():
            rate = spread(arguments.batch_size / each for each in taken)
            done = rate["median"] * work[task]
            results.append(
                {
                    "task": task,
                    "contender": name,
                    "precision": arguments.precision,
                    "batch_size": arguments.batch_size,
                    "repeats": arguments.repeats,
                    "calls": arguments.calls,
                    "pairs_per_second": rate,
                    "tflops": done / 1e12,
                    "peak_share": done / peak,
                    "first_call_s": first[name],
                }
            )
            print(f"{task} | {name}: {rate['median']:.4g} pairs/s", file=sys.stderr, flush=True)
    return results


def _other_tasks(
    path: Path, settings: dict[str, Any], results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What an earlier run of the same kind measured of tasks that this one did not."""
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    same = ("architecture", "device", "cores", "quick")
    if any(document["settings"][name] != settings[name] for name in same):
        return []
    done = {row["task"] for row in results}
    return [row for row in document["results"] if row["task"] not in done]


def _largest_error(ours: list[Any], theirs: list[Any]) -> float:
    return max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(ours, theirs, strict=True)
    )


if __name__ == "__main__":
    if "--worker" in sys.argv:
        given = json.loads(sys.argv[sys.argv.index("--worker") + 1])
        (work_jaxinf if given["kind"] == "jaxinf" else work_torch)(given)
    else:
        main()
