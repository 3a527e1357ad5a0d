"""How `reference_influence` normalises and decides: chosen on draws that no report has.

    python -m benchmarks.leakage_development [--seeds 100 101 102 103 104]

Digits as in `benchmarks.leakage_kinds`, other draws of data, copies and weights. Sizes of training
examples from the references' scores (root mean square, mean absolute, median absolute) beside the
exact gradient norms and plain cosines, each with every statistic, signed or not: power at 5 % FDR
over all kinds.
"""

import argparse
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, write_result
from benchmarks.leakage_figures import STATISTICS, measure
from benchmarks.leakage_kinds import SIZES
from benchmarks.leakage_methods import RIDGE, Scores, Settings, Slopes, first_order, whitened
from benchmarks.leakage_subjects import SUBJECTS
from jaxinf.datasets.duplicates import KINDS
from jaxinf.evaluation import mean_interval

SIZE_OF = {
    "root mean square": lambda own: np.sqrt(np.mean(own**2, axis=0)),
    "mean absolute": lambda own: np.mean(np.abs(own), axis=0),
    "median absolute": lambda own: np.median(np.abs(own), axis=0),
}


def contenders(slopes: Slopes, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Scores [K, N] by name."""
    along = slopes.dots / slopes.of_queries[:, None]
    cosines = slopes.products / slopes.of_queries[:, None] / slopes.of_queries[reference]
    arguments = along, along[reference], cosines, cosines[reference]
    found = {
        f"references, {name}": whitened(*arguments, size=size) for name, size in SIZE_OF.items()
    }
    found["exact norms, whitened"] = whitened(*arguments, norms=slopes.of_train)
    return found | {"grad_cos": along / np.maximum(slopes.of_train, 1e-30)}


def main() -> None:
    """Run every draw; the JSON is written after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    arguments = parser.parse_args()
    power: dict[tuple[str, str], list[float]] = defaultdict(list)
    top1: dict[str, list[float]] = defaultdict(list)
    for seed in arguments.seeds:
        subject = SUBJECTS["digits"](SIZES["digits"], seed)
        rows = np.arange(len(subject.source))
        slopes = first_order(subject, Settings(512, 1024, "gradients", seed, 0))
        for name, scores in contenders(slopes, subject.parts["reference"]).items():
            figures = measure(Scores(name, "", rows, scores), subject, KINDS)
            halves = ("development", "report")  # both are development here
            mean = lambda pick, halves=halves: float(
                np.mean([pick(half, kind) for half in halves for kind in KINDS])
            )
            hits = figures["hits"]
            top1[name].append(mean(lambda half, kind, h=hits: h[half]["absolute"][kind][0]))
            for statistic, by in figures["decisions"].items():
                value = mean(lambda half, kind, by=by: by[half]["power"][kind])
                power[name, statistic].append(value)
        results = [
            {
                "scores": name,
                "top1": asdict(mean_interval(each)) | {"raw": each},
                "power": {
                    statistic: asdict(mean_interval(values)) | {"raw": values}
                    for (of, statistic), values in power.items()
                    if of == name
                },
            }
            for name, each in top1.items()
            if len(each) > 1
        ]
        settings: dict[str, Any] = {
            "seeds": arguments.seeds,
            "ridge": RIDGE,
            "statistics": list(STATISTICS),
            "device": jax.devices()[0].device_kind,
        }
        print(f"draw {seed}: {subject.fit}", flush=True)
        if results:
            write_result(RESULTS / "leakage_development.json", settings, results)


if __name__ == "__main__":
    main()
