"""The figure of `benchmarks.mirrored_hypothesis`.

    python -m benchmarks.mirrored_plot

Retraining without an example or a group, against the mirror of it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, ROOT
from benchmarks.tables_mirrored import NAMES

KINDS = {"swept": "wrong labels 0 to 100 %", "shuffled": "the same, at random"}


def panels(results: dict[str, Any], name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Title -> mirror and truth, of one set; networks at the size that all of them were run at."""
    found = {}
    for row in results["convex"]:
        if row["set"] == name and "worst_query" in row:
            points = row["worst_query"]
            title = f"{NAMES[name]}, logistic regression"
            found[title] = np.array(points["mirror"]), np.array(points["truth"])
            break
    shown = [row for row in results["groups"] if row["set"] == name and row["kind"] in KINDS]
    sizes = [{r["train"] for r in shown if r["model"] == row["model"]} for row in shown]
    common = set.intersection(*sizes) if sizes else set()
    for row in shown:
        if row["train"] in common:
            means = (np.mean(row[side], axis=0) for side in ("mirror", "truth"))
            found[f"{NAMES[name]}, {row['model'].upper()}, {KINDS[row['kind']]}"] = tuple(means)
    return found


def plot(path: Path, results: dict[str, Any]) -> None:
    """One row of panels per set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # the same bytes for the same figures
    plt.rcParams["svg.hashsalt"] = "mirror"
    names = [name for name in NAMES if panels(results, name)]
    columns = max(len(panels(results, name)) for name in names)
    size = (2.9 * columns, 2.9 * len(names))
    figure, axes = plt.subplots(len(names), columns, figsize=size, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        shown = panels(results, name)
        for axis in row[len(shown) :]:
            axis.axis("off")
        for axis, (title, (mirror, truth)) in zip(row, shown.items(), strict=False):
            axis.scatter(mirror, truth, s=10, alpha=0.6, linewidths=0, color="#0072b2")
            axis.set_title(title, fontsize=8)
            axis.ticklabel_format(scilimits=(-2, 3))
            axis.locator_params(nbins=5)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.2)
        row[0].set_ylabel("retrained without", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("mirror", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    saved = json.loads((RESULTS / "mirrored_hypothesis.json").read_text())
    plot(ROOT / "docs" / "mirror.svg", saved["results"])
