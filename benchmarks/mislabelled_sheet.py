"""The most suspect labels of real sets as they are distributed, with no noise added, as pictures.

    python -m benchmarks.mislabelled_sheet

Above each image its label, below it the class that models which did not see it find most probable.
There is no truth to hold them against here; look for yourself.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT
from benchmarks.detection_sets import DATA
from benchmarks.memorisation_plot import CLASSES
from benchmarks.mislabelled_methods import gather
from benchmarks.mislabelled_sets import Case, Data, sets
from jaxinf.applications.mislabelled import find_mislabelled, suggest_labels
from jaxinf.datasets import LabelNoise, read_jpeg_pack

METHOD, SIZES, COLUMNS = "trusted_consensus", (5000, 300), 12
NAMES = CLASSES | {
    "cifar10": (
        "airplane", "car", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    )
}  # fmt: skip


def unspoiled(data: Data, seed: int) -> tuple[Case, np.ndarray]:
    """A training and a trusted set with the labels that they come with; rows of the former."""
    x, features, y = data.read()
    pool = np.setdiff1d(np.arange(len(y)), np.arange(len(y))[data.development])
    order = np.random.default_rng(seed).permutation(pool)
    parts = np.split(order, np.cumsum(SIZES))[:2]
    train, trusted = ({"x": x[p], "y": y[p], "features": features[p]} for p in parts)
    truth = LabelNoise({}, np.zeros(len(parts[0]), bool), train["y"])
    return Case(train, trusted, trusted, truth, int(y.max()) + 1), parts[0]


def images_of(name: str, rows: np.ndarray, case: Case, found: np.ndarray) -> np.ndarray:
    """What the suspects look like."""
    if name == "cifar10":  # the model saw features
        return read_jpeg_pack(DATA / "cifar10_jpeg.npz", (50000 + rows[found]).tolist())["x"]
    return 1 - case.train["x"][found][..., 0]


def suspects(name: str, data: Data, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and suggested classes of the most suspect examples, the worst first."""
    case, rows = unspoiled(data, seed)
    evidence, _ = gather(case, data, seed)
    worst = find_mislabelled(evidence, METHOD, budget=0, batch_size=500).order[:COLUMNS]
    suggested = suggest_labels(np.asarray(evidence.out_of_fold))
    return images_of(name, rows, case, worst), case.train["y"][worst], suggested[worst]


def draw_sheet(path: Path, found: dict[str, tuple[Any, Any, Any]]) -> None:
    """A row of images per set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(found), COLUMNS, figsize=(0.85 * COLUMNS, 1.25 * len(found)))
    for row, (name, (images, labels, suggested)) in zip(axes, found.items(), strict=True):
        for axis, image, label, other in zip(row, images, labels, suggested, strict=True):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(NAMES[name][label], fontsize=8, pad=2)
            axis.set_xlabel(f"{NAMES[name][other]}?", fontsize=8, labelpad=2)
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True}, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Fashion-MNIST and CIFAR-10, into the docs."""
    found = {name: suspects(name, sets()[name]) for name in ("fashion_mnist", "cifar10")}
    draw_sheet(ROOT / "docs" / "mislabelled_suspects.png", found)


if __name__ == "__main__":
    main()
