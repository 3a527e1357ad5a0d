"""What may be known about a training set, and what each method needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxinf.applications.mislabelled.noise_rate import check_log_probabilities
from jaxinf.errors import InputError, check_examples, check_finite
from jaxinf.typing import Batch, Params, PerExampleLoss


@dataclass(frozen=True, eq=False)
class Evidence:
    """A training set with doubtful labels, and what there is to judge them by.

    Attributes:
        train: `{"x": [N, ...], "y": int[N]}`, labels as given.
        loss_fn: cross-entropy `(params, batch) -> float[B]`, in evaluation mode.
        params: of a model trained on `train`.
        trusted: examples like `train` whose labels are right.
        out_of_fold: float[N, C], log-probabilities by models that did not see the example, as
            from `cross_fit`.
        checkpoints: C models with a leading axis C, as from `stack_checkpoints`: of one run, or
            several briefly trained ones.
        key: for methods that draw.
    """

    train: Batch
    loss_fn: PerExampleLoss | None = None
    params: Params | None = None
    trusted: Batch | None = None
    out_of_fold: Float[np.ndarray, "N C"] | None = None
    checkpoints: Params | None = None
    key: jax.Array | None = None

    @property
    def loss(self) -> PerExampleLoss:
        """The loss, where a method needs one."""
        if self.loss_fn is None:
            raise InputError("the evidence has no loss_fn")
        return self.loss_fn

    @property
    def labels(self) -> np.ndarray:
        """int[N], as given."""
        return np.asarray(self.train["y"])


class Running(NamedTuple):
    """How a method is run: rows per step, where scores become durable, whether a bar is shown."""

    batch_size: int = 256
    store: Any = None
    progress: bool = True


class Method(NamedTuple):
    """One way to suspect labels.

    Attributes:
        score: `(evidence, running) -> float[N]`, higher = more suspect.
        needs: fields of `Evidence` that it reads, beside `train`.
        forward_only: whether no gradient of a training example is taken.
        summary: what it looks at, in a line.
    """

    score: Callable[[Evidence, Running], np.ndarray]
    needs: tuple[str, ...]
    forward_only: bool
    summary: str


def check_evidence(evidence: Evidence, method: str, needs: tuple[str, ...]) -> int:
    """Check what a method needs before any work; return N.

    Raises:
        InputError: for what is missing, empty, NaN or does not fit, or trusted classes that the
            training set does not have.
    """
    missing = [name for name in needs if getattr(evidence, name) is None]
    if missing:
        raise InputError(f"{method} needs {' and '.join(missing)}: the evidence has none")
    sides: dict[str, Any] = {"train": evidence.train}
    if "trusted" in needs:
        sides["trusted"] = evidence.trusted
    for name, side in sides.items():
        if not isinstance(side, dict) or not {"x", "y"} <= set(side):
            raise InputError(f"{name} must be a dict with 'x' and 'y', one leading axis for both")
        check_examples(side, name)
        check_finite(side, name, first_row=0)
        labels = np.asarray(side["y"])
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(f"{name}['y'] must be integer class labels int[N], from 0")
    if "trusted" in needs:
        trusted: Any = evidence.trusted
        check_known_classes(evidence.labels, np.asarray(trusted["y"]))
    if "out_of_fold" in needs:
        check_log_probabilities(np.asarray(evidence.out_of_fold), evidence.labels)
    return len(evidence.labels)


def check_known_classes(train_labels: np.ndarray, trusted_labels: np.ndarray) -> None:
    """Refuse trusted classes that no training example carries.

    Raises:
        InputError: naming them.

    Example:
        >>> check_known_classes(np.array([0, 1]), np.array([1, 1]))
    """
    unknown = np.setdiff1d(trusted_labels, train_labels)
    if unknown.size:
        raise InputError(
            f"the trusted set has {unknown.size} classes that the training set lacks, such as "
            f"{unknown[0]}: leave them out, or check that both number the classes alike"
        )
