"""What a question leaves behind, whatever it asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from jaxinf.influence import Attribution
from jaxinf.report.sections import Section

Begin: TypeAlias = Callable[[str], None]
"""Called with a description before each step of work."""


@dataclass(frozen=True)
class Answer:
    """One question's answer.

    Attributes:
        name: short; the key in `results.json` and the prefix in `scores.npz`.
        section: the chapter of the report; its first table is printed in the terminal.
        summary: one sentence, in plain words.
        results: figures, JSON-able.
        scores: arrays to keep.
        runs: what was run, by label: for the tables of cost and trust.
    """

    name: str
    section: Section
    summary: str
    results: dict[str, Any]
    scores: dict[str, np.ndarray]
    runs: Mapping[str, Attribution] = field(default_factory=dict)
