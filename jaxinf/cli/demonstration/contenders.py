"""Who competes: Forward-INF in its forms, gradient cosine, and what needs no influence at all."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinf.cli.demonstration.subject import Subject
from jaxinf.cli.methods import Method, Normalise, build_attributor
from jaxinf.influence import Attribution, Attributor, attribute, representation_similarity
from jaxinf.influence.checks import PrecisionWarning


@dataclass(frozen=True)
class Contender:
    """One way of scoring training examples.

    Attributes:
        name: key on the command line and in files.
        label: name in tables.
        build: the attributor for a subject.
        stateful: whether it takes `(params, state)`.
        signed: whether low scores mean harm; otherwise high ones mean an effect of either sign.
    """

    name: str
    label: str
    build: Callable[[Subject], Attributor]
    stateful: bool = False
    signed: bool = True

    def score(self, subject: Subject, queries: Any) -> np.ndarray:
        """Scores alone: float[K, N]."""
        return np.asarray(self.run(subject, queries, diagnostics=False).scores)

    def run(self, subject: Subject, queries: Any, **options: Any) -> Attribution:
        """Score the training set for queries."""
        params = (subject.params, subject.state) if self.stateful else subject.params
        with warnings.catch_warnings():
            # what it warns of stands in the report's table
            warnings.simplefilter("ignore", PrecisionWarning)
            return attribute(
                self.build(subject), params, queries, subject.train, progress=False, **options
            )


def _named(method: Method, normalise: Normalise | None = None) -> Callable[[Subject], Attributor]:
    return lambda subject: build_attributor(
        method, subject.loss_fn, normalise=normalise, stateful_loss=subject.stateful_loss
    )


CONTENDERS = (
    Contender("forward-inf", "Forward-INF, finite step", _named(Method.FORWARD_INF)),
    Contender("forward-inf-jvp", "Forward-INF, exact limit (JVP)", _named(Method.FORWARD_INF_JVP)),
    Contender(
        "forward-inf/loss",
        "Forward-INF, finite step ÷ loss",
        _named(Method.FORWARD_INF, Normalise.LOSS),
    ),
    Contender(
        "forward-inf-jvp/loss",
        "Forward-INF, JVP ÷ loss",
        _named(Method.FORWARD_INF_JVP, Normalise.LOSS),
    ),
    Contender("grad-cos", "gradient cosine", _named(Method.GRAD_COS)),
    Contender(
        "released",
        "Forward-INF, paper's released recipe",
        _named(Method.RELEASED),
        stateful=True,
        signed=False,
    ),
)

NEIGHBOURS = (
    Contender(
        "pixel-neighbour",
        "nearest neighbour in pixels",
        lambda subject: representation_similarity(
            lambda params, batch: batch["x"], metric="euclidean"
        ),
    ),
    Contender(
        "embedding-neighbour",
        "nearest neighbour in the embedding",
        lambda subject: representation_similarity(subject.features),
    ),
)
