"""What `jaxinf diffusion` adds to the report: what the contrast is with, and how scores lie."""

from typing import Any

import numpy as np

from jaxinf.influence import Attribution
from jaxinf.report.figures import histogram, image_png
from jaxinf.report.sections import Example, Figure, Section, Strip

_SHOWN = 8


def contrast_section(generated: Any, plain: Any) -> Section:
    """The generated images beside those of the weights from before, from the same noise.

    Args:
        generated: `{"x": float[K, H, W, c] in [-1, 1], ...}`.
        plain: the images that the scores are a contrast with, likewise.
    """
    pairs = [
        Strip(
            (("Before the tuning", (Example((), image_png(before)),)),),
            Example((f"query {number}",), image_png(after), "query"),
        )
        for number, (after, before) in enumerate(
            zip(_pictures(generated), _pictures(plain), strict=True)
        )
    ]
    return Section(
        "What the contrast is with",
        (
            "Scores are less those of the image that the weights from before the tuning make from "
            "the same noise. Where the two have nothing in common, --noise-seed is not the seed "
            "that the generated images were made with, and the contrast is with another image.",
        ),
        strips=tuple(pairs),
    )


def score_section(found: Attribution) -> Section:
    """How the scores of the first queries lie, in their own deviations from the mean.

    Only where every score is kept: `top_k` leaves nothing to see.
    """
    assert found.scores is not None
    scores = np.asarray(found.scores, np.float64)[:_SHOWN]
    deviation = scores.std(axis=1, keepdims=True)
    spread = (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    best = spread.max(axis=1)
    chart = histogram(
        {"all training images": spread, "the first of each query": best},
        xlabel="score, in standard deviations of its query's",
    )
    caption = (
        f"Scores of the first {len(scores)} generated images. Where the first of a query is no "
        "further out than the rest, no training image stands out for it."
    )
    return Section("How far the first ones stand out", figures=(Figure(chart, caption),))


def _pictures(images: Any) -> np.ndarray:
    return (np.clip(np.asarray(images["x"][:_SHOWN]), -1, 1) + 1) / 2
