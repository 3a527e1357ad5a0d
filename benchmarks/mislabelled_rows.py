"""Rows of `benchmarks.mislabelled`: figures of several seeds together, and apart again."""

from typing import Any

import numpy as np

from benchmarks.mislabelled_methods import BASELINES
from jaxinf.applications.mislabelled import METHODS
from jaxinf.evaluation import mean_interval


def summarise(name: str, kind: str, rate: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the results: means and intervals over the seeds, and each seed's figures."""
    methods = {}
    for method in runs[0]["methods"]:
        if not all(method in run["methods"] for run in runs):
            continue
        entries = [run["methods"][method] for run in runs]
        figures = [key for key in entries[0] if key != "curve"]
        methods[method] = {key: _summary([entry[key] for entry in entries]) for key in figures}
        methods[method]["curve"] = np.mean([e["curve"] for e in entries], axis=0).round(4).tolist()
        known = METHODS.get(method)
        methods[method]["forward_only"] = known.forward_only if known else BASELINES[method][0]
        methods[method]["trusted"] = "trusted" in known.needs if known else BASELINES[method][1]
    row: dict[str, Any] = {"set": name, "kind": kind, "rate": rate, "seeds": len(runs)}
    row["methods"] = methods
    row["rates"] = {key: _summary([run["rates"][key] for run in runs]) for key in runs[0]["rates"]}
    if "gains" in runs[0]:
        row["gains"] = {
            method: {
                way: _summary([run["gains"][method][way] for run in runs])
                | {"gain": _summary([_gain(run["gains"], method, way) for run in runs])}
                for way in ("removed", "relabelled")
            }
            for method in runs[0]["gains"]
        }
    return row


def runs_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The seeds' figures of a row, to go on from; each gets the mean of the detection curves."""

    def of_seed(tree: Any, seed: int) -> Any:
        if "raw" in tree:
            return tree["raw"][seed]
        return {
            key: value if key == "curve" else of_seed(value, seed)
            for key, value in tree.items()
            if key not in ("forward_only", "trusted", "gain")
        }

    parts = [name for name in ("methods", "rates", "gains") if name in row]
    return [{name: of_seed(row[name], s) for name in parts} for s in range(row["seeds"])]


def _gain(found: dict[str, Any], method: str, way: str) -> float:
    return found[method][way] - found["(nothing done)"][way]


def _summary(values: list[float]) -> dict[str, Any]:
    raw = [round(float(value), 6) for value in values]
    entry: dict[str, Any] = {"mean": float(np.mean(raw)), "raw": raw}
    if len(values) > 1:
        interval = mean_interval(values)
        entry["interval"] = [interval.low, interval.high]
    return entry
