"""What `jaxinf leakage` was asked for and what it found, wherever the scores come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.applications.leakage import Leaks, LeakStatistics, score_queries
from jaxinf.influence import Attributor


@dataclass(frozen=True)
class Asked:
    """What the command was asked for, whatever the scores come from.

    Attributes:
        fdr: the rate.
        settings: of `leak_statistics`.
        store: folder for durable scores, or None.
        query_chunk: queries at a time.
        batch_size: training examples per step.
        seed: which training rows calibrate.
        progress: whether to show bars.
    """

    fdr: float
    settings: dict[str, Any]
    store: Path | None
    query_chunk: int
    batch_size: int
    seed: int
    progress: bool

    def score(
        self, attributor: Attributor, params: Any, queries: Any, train: Any, name: str
    ) -> Any:
        """Scores in chunks, durable under `store / name`."""
        return score_queries(
            attributor,
            params,
            queries,
            train,
            query_chunk=self.query_chunk,
            store=None if self.store is None else self.store / name,
            batch_size=self.batch_size,
            progress=self.progress,
        )


@dataclass(frozen=True)
class Found:
    """What is written, shown and reported.

    Attributes:
        leaks: the decisions.
        null: statistics of what calibrated, or None.
        method: what made the scores.
        calibration: what the p-values rest on, in a sentence.
        num_train: N.
        columns: more columns of the table of leaks, by name.
        query_card: row -> (caption, picture or None).
        source_card: the same of a training example.
        signed: whether a negative score means that the labels disagree.
        warnings: what the user should know.
    """

    leaks: Leaks
    null: LeakStatistics | None
    method: str
    calibration: str
    num_train: int
    columns: Mapping[str, Any]
    query_card: Callable[[int], tuple[str, np.ndarray | None]]
    source_card: Callable[[int], tuple[str, np.ndarray | None]]
    signed: bool
    warnings: tuple[str, ...] = ()
