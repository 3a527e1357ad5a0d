"""The figures of `benchmarks.lds`: accuracy against training, and against seconds in all.

python -m benchmarks.lds_plot
"""

from pathlib import Path
from typing import Any

COLOURS = {
    "early": "#d55e00",
    "influence": "#0072b2",
    "unroll": "#56b4e9",
    "forward-inf": "#009e73",
    "trak": "#cc79a7",
    "gradients": "#8c6d1f",
    "baseline": "#999999",
    "dattri": "#000000",
}
TITLES = {
    "mnist_lr": "MNIST + logistic regression",
    "mnist_mlp": "MNIST + MLP",
    "cifar2_resnet9": "CIFAR-2 + ResNet-9",
    "shakespeare": "tiny Shakespeare + transformer",
    "cifar2_resnet9_reduced": "CIFAR-2 + ResNet-9, reduced",
    "shakespeare_reduced": "tiny Shakespeare + transformer, reduced",
}


def plot(path: Path, sets: dict[str, dict[str, Any]], against: str = "training") -> None:
    """One panel per set; a line joins a method's figures for growing numbers of models.

    `against="seconds"` has all of a method's time, training and what comes after it, of the sets
    that say how long a full run takes on the machine that the rest was timed on.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import lines

    # the same bytes for the same figures
    plt.rcParams["svg.hashsalt"] = "lds"
    names = [name for name in TITLES if name in sets]
    if against == "seconds":
        names = [name for name in names if "run_seconds" in sets[name]]
    # two rows where there are many
    columns = len(names) if len(names) < 5 else -(-len(names) // 2)
    rows_of = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows_of, columns, figsize=(4.6 * columns, 4.2 * rows_of), squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        document = sets[name]
        for (source, _), rows in curves(document).items():
            places = [_place(row, document, against) for row in rows]
            theirs = source != "jaxinf"
            colour = COLOURS[rows[0]["family"]]
            axis.plot(
                places,
                [row["lds"]["estimate"] for row in rows],
                marker={"jaxinf": "o", "dattri, run here": "s"}.get(source, "x"),
                markersize=4,
                linewidth=1,
                linestyle="--" if theirs else "-",
                color=colour,
            )
        if document["agreement"] is not None:
            axis.axhline(document["agreement"]["ceiling"], color="0.7", linewidth=0.8)
        axis.set(
            title=TITLES[name],
            xlabel="training, in full runs" if against == "training" else "seconds in all",
            xscale="log",
            ylim=(-0.1, 1),
        )
        axis.grid(alpha=0.2)
    for axis in axes[:, 0]:
        axis.set_ylabel("LDS")
    handles = [
        lines.Line2D([], [], color=colour, marker="o", markersize=4, linewidth=1, label=family)
        for family, colour in COLOURS.items()
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(COLOURS), fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"wrote {path}")


def _place(row: dict[str, Any], document: dict[str, Any], against: str) -> float:
    """Published figures have no seconds of ours."""
    if against == "training":
        return row["training"]
    return row["training"] * document["run_seconds"] + row.get("seconds", float("nan"))


def curves(document: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of each source's methods by growing training, the published figures among them."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in [*document["rows"], *document["published"]]:
        found.setdefault((row["source"], row["method"]), []).append(row)
    return {key: sorted(rows, key=lambda row: row["training"]) for key, rows in found.items()}


def main() -> None:
    """Both figures, from the committed results."""
    from benchmarks.common import RESULTS, ROOT
    from benchmarks.lds import all_sets

    sets = all_sets(RESULTS / "lds.json")
    plot(ROOT / "docs" / "lds.svg", sets)
    plot(ROOT / "docs" / "lds_seconds.svg", sets, "seconds")


if __name__ == "__main__":
    main()
