"""Leaks of six kinds: is the source found, and is a leak told from a clean query?

    python -m benchmarks.leakage_kinds [--subject digits resnet18 resnet20 resnet56] [--seeds 5]

Training examples are copied into the test set: exactly, cropped, shifted by a pixel, as JPEG,
brighter or darker, or under another label. Each copy is a query; so are clean test examples, some
of which calibrate p-values and some of which are judged beside the copies. Subjects: digits with a
small network, CIFAR-10 with a ResNet-18 trained here, and with published ResNets. Every method,
trivial ones first, stands in the same table. Each seed draws data, copies and weights anew.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, cores, write_result
from benchmarks.leakage_figures import FDR, measure, summarise
from benchmarks.leakage_methods import (
    COSTLY,
    LAST_CHEAP,
    Make,
    Settings,
    cheap_steps,
    costly_steps,
    default_scorer,
)
from benchmarks.leakage_subjects import SUBJECTS, Sizes, Subject
from jaxinf.datasets.duplicates import KINDS

SIZES = {
    "digits": Sizes(1078, 40, 128, 300, 290, 40),
    "resnet18": Sizes(10_000, 40, 128, 200, 120, 15, stepped=6),
    "resnet20": Sizes(10_000, 40, 128, 200, 120, 0, stepped=10),
    "resnet56": Sizes(10_000, 40, 128, 200, 120, 0, stepped=10),
}
QUICK = Sizes(120, 4, 16, 40, 20, 1, stepped=2, stepped_clean=20)
# of the queries, how many directions are held at once; 688 queries are four equal parts
CHUNKS = {"resnet18": 172}


def stepped_queries(subject: Subject, sizes: Sizes) -> np.ndarray:
    """Rows of the queries that methods with a pass per query are given."""
    if not sizes.stepped:
        return np.setdiff1d(np.arange(len(subject.source)), subject.parts["reference"])
    clean = [subject.parts[name][: sizes.stepped_clean] for name in ("calibration", "clean")]
    copies = [np.flatnonzero(subject.kind == kind)[: sizes.stepped] for kind in KINDS]
    return np.concatenate([*clean, *copies])


def run_steps(
    steps: Iterable[tuple[str, Make]], subject: Subject, deadline: float
) -> Iterator[dict[str, Any]]:
    """The figures of one method after another; what would begin after the deadline is left out."""
    for name, make in steps:
        if time.monotonic() > deadline:
            print(f"no time left for {name}", file=sys.stderr, flush=True)
            return
        began = time.perf_counter()
        try:
            for scores in make():
                figures = measure(scores, subject, KINDS)
                figures |= {"method": scores.method, "family": scores.family}
                figures["seconds"] = time.perf_counter() - began
                top = np.mean([hits[0] for hits in figures["hits"]["report"]["signed"].values()])
                line = f"{scores.method}: top-1 {top:.2f}, {figures['seconds']:.1f} s"
                print(line, file=sys.stderr, flush=True)
                yield figures
        except Exception as error:  # noqa: BLE001 - one method too large must not end the others
            print(f"{name} failed: {error!r}"[:2000], file=sys.stderr, flush=True)


def main() -> None:
    """Run what the command line asks for and write the JSON after every method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, default=["digits"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, help="training examples per step")
    parser.add_argument("--train", type=int, help="training examples, in place of the usual")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual queries")
    parser.add_argument("--probes", type=int, default=64, help="for gradient norms; 0: none")
    parser.add_argument(
        "--costly", nargs="*", choices=COSTLY, default=COSTLY, help="of a pass per query, these"
    )
    parser.add_argument(
        "--stepped-clean", type=int, help="clean queries of either sort that these are given"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after that long")
    parser.add_argument("--raw", type=Path, help="file for every figure; a run goes on from it")
    parser.add_argument("--quick", action="store_true", help="2 seeds, tiny sizes")
    parser.add_argument("--name", default="leakage_kinds", help="of the JSON")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = 2
    seeds = range(arguments.first_seed, arguments.seeds)
    deadline = time.monotonic() + arguments.seconds
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_num_cpu_devices", cores())
    runs: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    fits: dict[str, dict[str, Any]] = defaultdict(dict)
    if arguments.raw is not None and arguments.raw.exists():
        saved = json.loads(arguments.raw.read_text())
        fits.update(saved["fits"])
        for name, by_method in saved["runs"].items():
            runs[name].update(by_method)
    began = time.monotonic()
    sizes = {
        name: QUICK if arguments.quick else _sized(SIZES[name], arguments)
        for name in arguments.subject
    }
    subjects = {}
    on_accelerator = jax.default_backend() != "cpu"
    # on a CPU so few that their gradients are one chunk, which compiles fastest
    arguments.batch_size = arguments.batch_size or (512 if on_accelerator else 128)
    with tempfile.TemporaryDirectory() as folder:
        # every seed runs the same programs on other numbers: they are compiled once
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update(
            "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)
        )
        for is_costly in (False, True):
            for seed, name in itertools.product(seeds, arguments.subject):
                ends_with = arguments.costly if is_costly else (LAST_CHEAP,)
                missing = [method for method in ends_with if not _has(runs[name], method, seed)]
                if time.monotonic() > deadline or not missing:
                    continue
                settings = Settings(
                    min(arguments.batch_size, sizes[name].train),
                    CHUNKS.get(name, 1024),
                    default_scorer(on_accelerator),
                    seed,
                    arguments.probes,
                )
                subject = subjects.get((name, seed)) or SUBJECTS[name](sizes[name], seed)
                subjects[name, seed] = subject
                fits[name][str(seed)] = subject.fit
                if is_costly:
                    rows = stepped_queries(subject, sizes[name])
                    made = costly_steps(subject, settings, rows)
                    made = [(method, make) for method, make in made if method in missing]
                else:
                    made = cheap_steps(subject, settings)
                line = f"-- {name}, seed {seed}: {subject.fit}, {time.monotonic() - began:.0f} s"
                print(line, file=sys.stderr, flush=True)
                for figures in run_steps(made, subject, deadline):
                    if not _has(runs[name], figures["method"], seed):
                        runs[name][figures["method"]].append(figures | {"seed": seed})
                        _write(arguments, sizes, runs, fits)
    if runs:  # with nothing to add, the figures of --raw
        _write(arguments, sizes, runs, fits)


def _sized(sizes: Sizes, arguments: argparse.Namespace) -> Sizes:
    fewer = {
        name: round(arguments.share * getattr(sizes, name))
        for name in ("copies", "reference", "calibration", "clean")
    }
    if arguments.stepped_clean is not None:
        fewer["stepped_clean"] = arguments.stepped_clean
    return sizes._replace(train=arguments.train or sizes.train, **fewer)


def _has(by_method: dict[str, list[Any]], method: str, seed: int) -> bool:
    return any(figures["seed"] == seed for figures in by_method.get(method, ()))


def _write(
    arguments: argparse.Namespace,
    sizes: dict[str, Sizes],
    runs: dict[str, dict[str, list[Any]]],
    fits: dict[str, dict[str, Any]],
) -> None:
    results = []
    for name, by_method in runs.items():
        methods = [
            {
                "method": method,
                "family": of_method[0]["family"],
                "seeds": len(of_method),
                "seconds": [round(figures["seconds"], 2) for figures in of_method],
            }
            | summarise(of_method, KINDS)
            for method, of_method in by_method.items()
        ]
        if methods:
            results.append({"subject": name, "fit": list(fits[name].values()), "methods": methods})
    settings = {
        "sizes": {name: size._asdict() for name, size in sizes.items()},
        "fdr": FDR,
        "kinds": KINDS,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    if arguments.raw is not None:
        # a run that is killed while it writes loses nothing
        part = arguments.raw.with_suffix(".part")
        part.write_text(json.dumps({"fits": fits, "runs": runs}))
        part.replace(arguments.raw)
    write_result(arguments.output / f"{arguments.name}.json", settings, results)


if __name__ == "__main__":
    main()
