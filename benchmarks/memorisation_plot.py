"""The pictures of `benchmarks.memorisation`: agreement against cost, and the most memorised."""

from pathlib import Path
from typing import Any

import numpy as np

TITLES = {"fashion_mnist": "Fashion-MNIST", "mnist": "MNIST", "digits": "digits"}
CLASSES = {
    "fashion_mnist": (
        "T-shirt", "trousers", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "boot",
    )
}  # fmt: skip
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")


def contact_sheet(path: Path, images: np.ndarray, labels: np.ndarray, columns: int = 12) -> None:
    """Images [n, H, W, 1] in rows under the names of their labels, one small grey PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    name = path.stem.removeprefix("memorisation_")
    names = CLASSES.get(name, tuple(str(c) for c in range(10)))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.72 * columns, 0.9 * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, image, label in zip(axes.ravel(), images, labels, strict=False):
        axis.imshow(1 - image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(names[label], fontsize=7, pad=2)
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True}, metadata={"Software": None})
    plt.close(figure)


def curves(path: Path, results: dict[str, Any]) -> None:
    """One panel per set: the best of each family at each cost, settings chosen in development."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from benchmarks.tables_memorisation import chosen

    # the same bytes for the same figures
    plt.rcParams["svg.hashsalt"] = "memorisation"
    names = [name for name in TITLES if "report" in results.get(name, {})]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        report = results[name]["report"]
        for (method, rows), colour in zip(chosen(results[name]).items(), COLOURS, strict=False):
            axis.plot(
                [row["training"] + row["scoring"] for row in rows],
                [row["spearman_right"]["estimate"] for row in rows],
                marker="o", markersize=3, linewidth=1.2, color=colour, label=method,
            )  # fmt: skip
        truth = report["truth_right"]
        axis.axhline(truth["tie_ceiling"], color="0.6", linewidth=0.8, linestyle=":")
        axis.axhline(truth["reliability"]["ceiling"], color="0.3", linewidth=0.8)
        axis.axvline((report["truth_training"] + report["truth_scoring"]) / 50, color="0.8")
        axis.set(
            title=TITLES[name],
            xlabel="cost, in training runs on the whole set",
            xscale="log",
            ylim=(0, 1),
        )
        axis.grid(alpha=0.2)
    axes[0][0].set_ylabel("rank correlation with retrained memorisation")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"wrote {path}")
