"""The contact sheet of one customised set: what it was tuned on, what it made, what is found."""

import io
from typing import Any

import numpy as np

COLUMNS = 12
_FOUND, _OTHER = "#009e73", "#bbbbbb"


def contact_sheet(chosen: Any, made: Any, plain: Any, scores: dict[str, np.ndarray]) -> bytes:
    """A PNG of exemplars, images of the tuned model, and of the base model from the same noise.

    Then a row per method: the 12 candidates with the highest scores for the first image, each
    exemplar among them in a green frame.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    nothing: set[int] = set()
    rows = {
        "exemplars": (chosen.exemplars["x"], nothing),
        "generated, tuned model": (made["x"], nothing),
        "the same noise, base model": (plain["x"], nothing),
    }
    for name, of_method in scores.items():
        top = np.argsort(-of_method[0], kind="stable")[:COLUMNS]
        hits = set(np.flatnonzero(chosen.relevant[top]).tolist())
        rows[name] = chosen.candidates["x"][top], hits
    figure, axes = plt.subplots(
        len(rows), COLUMNS, figsize=(0.55 * COLUMNS + 2.6, 0.58 * len(rows)), squeeze=False
    )
    for line, (name, (images, hits)) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for place, axis in enumerate(line):
            axis.set(xticks=[], yticks=[])
            colour, width = (_FOUND, 2.5) if place in hits else (_OTHER, 0.5)
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=width, visible=place < len(images))
            if place < len(images):
                axis.imshow(images[place][..., 0], cmap="gray", vmin=-1, vmax=1)
    figure.tight_layout(pad=0.3, w_pad=0.2, h_pad=0.2)
    file = io.BytesIO()
    figure.savefig(
        file, dpi=100, bbox_inches="tight", pil_kwargs={"optimize": True},
        metadata={"Software": None},
    )  # fmt: skip
    plt.close(figure)
    return file.getvalue()
