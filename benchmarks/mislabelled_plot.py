"""Detection curves of `benchmarks.mislabelled`, means over the seeds.

python -m benchmarks.mislabelled_plot [--rate 0.2] [--output docs/mislabelled.png]
"""

import argparse
import json
from pathlib import Path

from benchmarks.common import RESULTS, ROOT
from benchmarks.mislabelled_kinds import NAMES

DRAWN = {
    "trusted_consensus": ("#0072b2", "-"),
    "consensus": ("#222222", "-."),
    "trusted_finite_loss": ("#009e73", "-"),
    "trusted_jvp": ("#d55e00", "-"),
    "self_preconditioned": ("#cc79a7", "-"),
    "out_of_fold_logistic": ("#222222", "--"),
    "loss": ("#777777", "--"),
    "knn_shapley": ("#777777", ":"),
    "lava": ("#aaaaaa", ":"),
}


def main() -> None:
    """Command line."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--results", type=Path, default=RESULTS / "mislabelled.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "mislabelled.png")
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text())
    cuts = document["settings"]["curve_inspected"]
    rows = [row for row in document["results"] if row["rate"] == arguments.rate]
    sets, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "kind"))
    figure = Figure(figsize=(9.6, 2.7 * len(sets) + 0.5), dpi=100, layout="constrained")
    grid = figure.subplots(len(sets), len(kinds), sharex=True, sharey=True, squeeze=False)
    for row in rows:
        ax = grid[sets.index(row["set"])][kinds.index(row["kind"])]
        ax.axvline(row["rates"]["true"]["mean"], color="#dddddd", linewidth=1)
        for method, (colour, style) in DRAWN.items():
            if method in row["methods"]:
                curve = row["methods"][method]["curve"]
                ax.plot(cuts, curve, style, color=colour, linewidth=1.5, label=NAMES[method])
        ax.set_title(f"{row['set']}, {row['kind']}", fontsize=9)
        ax.set(xlim=(0, 0.6), ylim=(0, 1.02))
        ax.spines[["top", "right"]].set_visible(False)
    for ax in grid[-1]:
        ax.set_xlabel("labels inspected, most suspect first", fontsize=8)
    figure.supylabel("wrong labels found", fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
