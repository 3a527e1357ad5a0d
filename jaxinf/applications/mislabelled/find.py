"""One verb for every method: which labels are suspect, how many, and what they might be."""

import functools
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from jaxinf.applications.mislabelled import with_trusted, without_trusted
from jaxinf.applications.mislabelled.evidence import Evidence, Method, Running, check_evidence
from jaxinf.applications.mislabelled.noise_rate import (
    check_log_probabilities,
    confident_joint,
    mixture_noise_rate,
)
from jaxinf.errors import InputError, check_count

_SINGLE = without_trusted.METHODS | with_trusted.METHODS


def _consensus(parts: tuple[str, ...]) -> Method:
    """Mean rank by several methods: what one mistakes, the others may put right."""

    def score(evidence: Evidence, running: Running) -> np.ndarray:
        # of one run's parts only some are by influence: a store each would have to be told apart
        scores = [_SINGLE[name].score(evidence, running._replace(store=None)) for name in parts]
        return np.mean([rankdata(each) for each in scores], axis=0) / len(evidence.labels)

    needs = tuple(dict.fromkeys(need for name in parts for need in _SINGLE[name].needs))
    forward_only = all(_SINGLE[name].forward_only for name in parts)
    return Method(score, needs, forward_only, f"mean rank by {', '.join(parts)}")


METHODS: dict[str, Method] = _SINGLE | {
    "consensus": _consensus(("out_of_fold_margin", "early_loss", "loss")),
    "trusted_consensus": _consensus(
        ("out_of_fold_margin", "early_loss", "loss", "trusted_finite_loss")
    ),
}
"""Every method by name, those without a trusted set first."""

Budget: TypeAlias = int | float | Literal["confident_joint", "mixture"]


@functools.partial(
    register_dataclass,
    data_fields=("suspicion", "is_flagged", "suggested"),
    meta_fields=("method", "noise_rate"),
)
@dataclass(frozen=True, eq=False)
class Suspects:
    """What was found about the labels of N training examples; a pytree.

    Attributes:
        suspicion: float64[N], higher = more suspect. Ranks the examples of one run: across
            methods and data sets the scales differ.
        is_flagged: bool[N], the most suspect, as many as the budget says.
        suggested: int64[N], the class that models which did not see the example find most
            probable; None without out-of-fold predictions.
        method: its name.
        noise_rate: share that is flagged, as given or estimated.
    """

    suspicion: Float[np.ndarray, " N"]
    is_flagged: Bool[np.ndarray, " N"]
    suggested: Int[np.ndarray, " N"] | None
    method: str
    noise_rate: float

    @property
    def order(self) -> Int[np.ndarray, " N"]:
        """Rows, the most suspect first; of equals the lower row."""
        return np.argsort(-self.suspicion, kind="stable")


def find_mislabelled(
    evidence: Evidence,
    method: str = "out_of_fold_margin",
    *,
    budget: Budget | None = None,
    batch_size: int = 256,
    store: str | os.PathLike | None = None,
    progress: bool = False,
) -> Suspects:
    """Score how suspect each training label is, and flag the most suspect.

    Sign: higher = more suspect; scores by influence are minus the influence on the trusted set.

    Args:
        evidence: the training set and what there is to judge it by; each method needs its part.
        method: one of `METHODS`.
        budget: how many to flag: a whole number of examples; a share between 0 and 1;
            `"confident_joint"` or `"mixture"`, the estimates of those names, with their
            assumptions. Default: the confident joint where there are out-of-fold predictions, else
            the mixture.
        batch_size: training examples per step.
        store: folder for durable scores of the methods by influence; see `attribute`.
        progress: show a bar.

    Returns:
        `Suspects`.

    Raises:
        InputError: for an unknown method, evidence that it needs and does not have or that does
            not fit, a budget out of range, or scores that are not finite.

    Example:
        >>> logs = np.log([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.9, 0.1]])
        >>> train = {"x": np.zeros((4, 1), np.float32), "y": np.array([0, 0, 1, 1])}
        >>> found = find_mislabelled(Evidence(train, out_of_fold=logs), budget=1)
        >>> found.is_flagged.tolist(), found.suggested.tolist()
        ([False, False, False, True], [0, 0, 1, 0])
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}: choose from {', '.join(METHODS)}")
    chosen = METHODS[method]
    check_count(batch_size, "batch_size")
    count = check_evidence(evidence, method, chosen.needs)
    known = evidence.out_of_fold is not None
    budget = ("confident_joint" if known else "mixture") if budget is None else budget
    check_budget(budget, count, known)
    if known:
        check_log_probabilities(np.asarray(evidence.out_of_fold), evidence.labels)
    suspicion = np.asarray(chosen.score(evidence, Running(batch_size, store, progress)), np.float64)
    if not np.isfinite(suspicion).all():
        raise InputError(
            f"{method} gave {int((~np.isfinite(suspicion)).sum())} scores that are NaN or "
            "infinite: check that labels lie in the model's classes and that it is trained"
        )
    number = _number(budget, suspicion, evidence)
    flagged = np.zeros(count, bool)
    flagged[np.argsort(-suspicion, kind="stable")[:number]] = True
    return Suspects(
        suspicion,
        flagged,
        suggest_labels(np.asarray(evidence.out_of_fold)) if known else None,
        method,
        number / count,
    )


def suggest_labels(out_of_fold: ArrayLike) -> Int[np.ndarray, " N"]:
    """The most probable class of each example, by models that did not see it.

    Args:
        out_of_fold: float[N, C], log-probabilities or logits.

    Returns:
        int64[N]; it may be the label as given, which is then more likely rare than wrong.

    Raises:
        InputError: for another shape, or NaN.

    Example:
        >>> suggest_labels([[0.0, 1.0], [2.0, 1.0]]).tolist()
        [1, 0]
    """
    logs = np.asarray(out_of_fold)
    rows = len(logs) if logs.ndim else 0
    return check_log_probabilities(logs, np.zeros(rows, np.int64))[0].argmax(axis=1)


def check_budget(budget: Budget | None, count: int, known: bool) -> None:
    """Refuse a budget out of range; `known`: there are out-of-fold predictions.

    Raises:
        InputError: naming it.

    Example:
        >>> check_budget(0.1, 20, known=False)
    """
    if budget is None:
        return
    if isinstance(budget, str):
        if budget not in ("confident_joint", "mixture"):
            raise InputError(
                f"budget is {budget!r}: a number, a share, 'confident_joint' or 'mixture'"
            )
        if budget == "confident_joint" and not known:
            raise InputError("the confident joint needs out_of_fold: the evidence has none")
        return
    if isinstance(budget, bool) or not isinstance(budget, int | float | np.number):
        raise InputError(f"budget is {budget!r}: a number of examples, or a share below 1")
    whole = isinstance(budget, int | np.integer)
    if not (0 <= budget <= count if whole else 0 <= budget < 1):
        bound = f"0 to {count} examples" if whole else "a share from 0 to below 1"
        raise InputError(f"budget is {budget}: give {bound}")


def _number(budget: Budget, suspicion: np.ndarray, evidence: Evidence) -> int:
    if budget == "confident_joint":
        rate = confident_joint(np.asarray(evidence.out_of_fold), evidence.labels).rate
    elif budget == "mixture":
        rate = mixture_noise_rate(suspicion).rate
    elif isinstance(budget, int | np.integer):
        return int(budget)
    else:
        rate = float(budget)
    return round(rate * len(suspicion))
