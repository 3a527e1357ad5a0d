"""How much of what a contrast finds is due to the image? The report less its control, by model.

    python -m benchmarks.diffusion_less_control REPORT.json ... --control CONTROL.json

The control asks about images that no exemplar is behind. What a method finds there it finds
whatever the image shows. Both are of the same models, of which each gives one difference.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from benchmarks.common import RESULTS, write_result
from jaxinf.evaluation import mean_interval

FIGURE = "map_contrast"


def less_control(
    report: list[dict[str, Any]], control: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Per mean of ln σ and method at the tuned weights: found, in the control, and the difference.

    Only of models that are in both.
    """
    of = lambda rows: {
        (row["p_mean"], row["kind"], row["method"], row["set"]): row[FIGURE]
        for row in rows
        if row["at"] == "tuned" and row["p_mean"] is not None
    }
    found, blind = of(report), of(control)
    groups: dict[tuple[float, str, str], list[tuple[int, float, float]]] = {}
    for (p_mean, kind, method, number), value in found.items():
        if (other := blind.get((p_mean, kind, method, number))) is not None:
            groups.setdefault((p_mean, kind, method), []).append((number, value, other))
    return [
        {
            "p_mean": p_mean,
            "kind": kind,
            "method": method,
            "sets": [number for number, _, _ in members],
            "report": sum(value for _, value, _ in members) / len(members),
            "control": sum(other for _, _, other in members) / len(members),
            "less": asdict(mean_interval([value - other for _, value, other in members])),
            "raw": [value - other for _, value, other in members],
        }
        for (p_mean, kind, method), members in groups.items()
        if len(members) > 1
    ]


def main() -> None:
    """Write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, nargs="+", help="files of benchmarks.diffusion")
    parser.add_argument("--control", type=Path, required=True, help="its file with --unrelated")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    read = lambda file: json.loads(file.read_text())["results"]["rows"]
    rows = [row for file in arguments.report for row in read(file)]
    results = less_control(rows, read(arguments.control))
    settings = {"figure": FIGURE, "device": jax.devices()[0].device_kind}
    write_result(arguments.output / "diffusion_less_control.json", settings, results)


if __name__ == "__main__":
    main()
