"""The figure of `benchmarks.facts`: mean reciprocal rank and recall of every method.

python -m benchmarks.facts_plot
"""

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT
from benchmarks.tables_facts import shown

COLOURS = {
    "lexical": "#999999",
    "representation": "#8c6d1f",
    "gradient": "#cc79a7",
    "forward": "#009e73",
    "combined": "#0072b2",
}
LABELS = {
    "lexical": "words alone",
    "representation": "hidden states",
    "gradient": "gradients of training sentences",
    "forward": "forward passes",
    "combined": "combined with BM25",
}


def plot(path: Path, document: dict[str, Any]) -> None:
    """A bar per method with its interval, in the order of the table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    plt.rcParams["svg.hashsalt"] = "facts"  # the same bytes for the same figures
    rows = shown(document)
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.34 * len(rows) + 1.4), sharey=True)
    for axis, key, title in zip(
        axes, ("mrr", "recall"), ("mean reciprocal rank", "recall@10"), strict=True
    ):
        for place, row in enumerate(rows):
            entry = row[key]
            reach = [[entry["estimate"] - entry["low"]], [entry["high"] - entry["estimate"]]]
            axis.barh(place, entry["estimate"], color=COLOURS[row["kind"]], height=0.7)
            axis.errorbar(entry["estimate"], place, xerr=reach, color="#333333", linewidth=1)
        axis.set(title=title, xlim=(0, 1))
        axis.grid(axis="x", alpha=0.25)
        axis.set_axisbelow(True)
    names = ["\n".join(textwrap.wrap(row["method"], 44)) for row in rows]
    axes[0].set_yticks(range(len(rows)), names, fontsize=8)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    handles = [Patch(color=colour, label=LABELS[kind]) for kind, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    for name in ("facts", "facts_reduced"):
        plot(ROOT / "docs" / f"{name}.svg", json.loads((RESULTS / f"{name}.json").read_text()))
