"""Training examples and queries as a reader meets them."""

from collections.abc import Iterable

import numpy as np

from jaxinf.cli.demonstration.subject import Subject
from jaxinf.report.figures import image_png
from jaxinf.report.sections import Example, Mark

LEGEND: tuple[tuple[Mark, str], ...] = (
    ("query", "the query"),
    ("good", "the training example that the query is a copy of"),
    ("bad", "a training example whose label was made wrong"),
)


def train_cards(
    subject: Subject, rows: Iterable[int], scores: Iterable[float], source: int | None = None
) -> tuple[Example, ...]:
    """Training examples with their labels, what they truly are, and their scores.

    Args:
        subject: whose training set.
        rows: which examples.
        scores: one per row.
        source: the row to frame as the one looked for.
    """
    cards = []
    for row, score in zip(rows, scores, strict=True):
        label, true = int(subject.train["y"][row]), int(subject.true_labels[row])
        lines = [f"labelled {label}"]
        if label != true:
            lines.append(f"truly {true}")
        if row == source:
            lines.append("the original")
        lines += [f"score {score:+#.2g}", f"row {row}"]
        mark: Mark = "good" if row == source else "bad" if label != true else ""
        cards.append(Example(tuple(lines), image_png(subject.train["x"][row]), mark))
    return tuple(cards)


def query_card(image: np.ndarray, *lines: str) -> Example:
    """What is asked about."""
    return Example(lines, image_png(image), "query")
