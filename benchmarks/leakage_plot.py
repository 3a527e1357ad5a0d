"""Copies of digits of every kind, their sources, and what two methods take for the source.

    python -m benchmarks.leakage_plot [--output docs/leakage.png]

The copies drawn are the first of each kind on the first draw, not picked by hand.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from benchmarks.common import ROOT
from benchmarks.leakage_kinds import SIZES
from benchmarks.leakage_subjects import Subject, digits
from jaxinf import attribute
from jaxinf.applications.leakage import reference_influence
from jaxinf.datasets.duplicates import KINDS
from jaxinf.influence import representation_similarity

GOOD, BAD, PLAIN = "#009e73", "#d55e00", "#999999"


def best_matches(subject: Subject, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Row of the training example that each method puts first, by size of the score."""
    asked = {key: value[rows] for key, value in subject.queries.items()}
    reference = {key: value[subject.parts["reference"]] for key, value in subject.queries.items()}
    pixels = representation_similarity(lambda _, batch: batch["x"], metric="euclidean")
    by_model = reference_influence(subject.loss_fn, reference)
    score = lambda method, params: np.asarray(
        attribute(method, params, asked, subject.train, diagnostics=False, progress=False).scores
    )
    return {
        "nearest in pixels": score(pixels, ()).argmax(axis=1),
        "by influence,\nforward-only": np.abs(score(by_model, subject.params)).argmax(axis=1),
    }


def draw(subject: Subject, output: Path) -> None:
    """Write the picture: a column per kind."""
    from matplotlib.figure import Figure

    rows = np.array([np.flatnonzero(subject.kind == kind)[0] for kind in KINDS])
    source, found = subject.source[rows], best_matches(subject, rows)
    lines = {"copy in the test set": None, "its source": source} | found
    figure = Figure(figsize=(7.2, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots(len(lines), len(KINDS))
    for line, (name, matches) in enumerate(lines.items()):
        for column, kind in enumerate(KINDS):
            ax = axes[line, column]
            if matches is None:
                image, label = (
                    subject.query_stored[rows[column]],
                    subject.queries["y"][rows[column]],
                )
            else:
                at = matches[column]
                image, label = subject.train_stored[at], subject.train["y"][at]
            ax.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], xlabel=f"labelled {label}")
            colour = PLAIN
            if line > 1 and matches is not None:
                colour = GOOD if matches[column] == source[column] else BAD
            for side in ax.spines.values():
                side.set(color=colour, linewidth=1 if colour == PLAIN else 3)
            if line == 0:
                ax.set_title(kind, fontsize=10)
        axes[line, 0].set_ylabel(name, fontsize=9)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Software": None})


def main() -> None:
    """Train the network of the first draw and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "leakage.png")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 1)
    draw(digits(SIZES["digits"], 0), arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
