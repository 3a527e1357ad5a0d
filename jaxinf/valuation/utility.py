"""Utilities: what a subset of the training set is worth, as one jitted function of a mask.

A utility takes a mask float[N] of zeros and ones and returns a number, higher = better. The
ones here are pytrees that carry their data, so compiled functions take them as arguments; any
function of a mask that JAX can trace and vmap serves as well.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxinf.errors import InputError, check_count, check_positive
from jaxinf.typing import AnyArray
from jaxinf.valuation.batching import map_in_batches
from jaxinf.valuation.distances import centre_together, squared_distances
from jaxinf.valuation.inputs import LabelledSets, check_sets
from jaxinf.valuation.logistic import (
    Neighbourhood,
    correctness,
    fit_logistic,
    neighbourhood,
    standardised_designs,
)

Utility: TypeAlias = Callable[[Float[jax.Array, " N"]], Float[jax.Array, ""]]
"""`utility(mask) -> float`: the worth of the training examples where `mask` is 1."""

Metric: TypeAlias = Literal["accuracy", "log_likelihood"]
"""On the validation set: the share classified right, or the mean log-probability in nats."""


def evaluate(
    utility: Utility, masks: Float[AnyArray, "S N"], *, batch_size: int = 64
) -> Float[jax.Array, " S"]:
    """Utility of many subsets, `batch_size` of them at once.

    Args:
        utility: function of one mask; it is vmapped.
        masks: float[S, N] of zeros and ones.
        batch_size: subsets evaluated together, that is, models trained in one batch.

    Returns:
        float[S].

    Raises:
        InputError: for masks of another rank, or a utility that returns more than one number.

    Example:
        >>> evaluate(lambda mask: mask @ jnp.array([1.0, 2.0]), jnp.eye(2)).tolist()
        [1.0, 2.0]
    """
    check_count(batch_size, "batch_size")
    masks = jnp.asarray(masks)
    if masks.ndim != 2 or not masks.shape[0]:
        raise InputError(f"masks have shape {list(masks.shape)}: [S, N], one row per subset")
    utility = as_pytree(utility, masks.shape[1])
    return _evaluate(utility, masks, batch_size=batch_size)


@functools.partial(jax.jit, static_argnames="batch_size")
def _evaluate(utility: Utility, masks: jax.Array, *, batch_size: int) -> jax.Array:
    return map_in_batches(utility, masks, batch_size=batch_size)


def as_pytree(utility: Utility, count: int) -> Utility:
    """Check a utility of `count` examples; make a plain function fit to be passed through jit.

    Raises:
        InputError: when it returns anything but one number.

    Example:
        >>> as_pytree(lambda mask: mask, 3)
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: the utility returns shape (3,): one number for each mask
    """
    if not callable(utility):
        raise InputError(f"utility is {type(utility).__name__}: a function of a mask float[N]")
    leaf = jax.tree_util.all_leaves([utility])
    wrapped = jax.tree_util.Partial(utility) if leaf else utility
    result: Any = jax.eval_shape(wrapped, jax.eval_shape(lambda: jnp.ones(count)))
    if getattr(result, "shape", None) != ():
        what = f"shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
        raise InputError(f"the utility returns {what}: one number for each mask")
    return wrapped


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "train_design",
        "train_targets",
        "valid_design",
        "valid_targets",
        "l2",
        "tolerance",
        "near",
    ),
    meta_fields=("metric", "max_steps"),
)
@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, so that jit takes it
class LogisticUtility:
    """Validation performance of a logistic regression; made by `logistic_utility`."""

    train_design: Float[jax.Array, "N d"]
    train_targets: Float[jax.Array, "N C"]
    valid_design: Float[jax.Array, "M d"]
    valid_targets: Float[jax.Array, "M C"]
    l2: float
    tolerance: float
    metric: Metric
    max_steps: int
    near: Neighbourhood | None = None

    def __call__(self, mask: Float[jax.Array, " N"]) -> Float[jax.Array, ""]:
        """Train on the examples where `mask` is 1 (or by weight) and score on validation."""
        fit = fit_logistic(
            self.train_design, self.train_targets, mask, near=self.near, **self._training()
        )
        logits = jnp.matmul(
            self.valid_design, fit.coefficients, precision=jax.lax.Precision.HIGHEST
        )
        if self.metric == "accuracy":
            return jnp.mean(correctness(logits, self.valid_targets))
        return jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * self.valid_targets, axis=-1))

    def around(self, mask: Float[jax.Array, " N"], *, warm: bool = True) -> "LogisticUtility":
        """The same utility for subsets that have at most one example more than `mask`.

        Their models share one inverse. With `warm` they start from that of `mask`, and are
        trained until a single example shows: to a tolerance of 1e-5 at most.
        """
        tolerance = jnp.minimum(self.tolerance, 1e-5) if warm else self.tolerance
        close = dataclasses.replace(self, tolerance=tolerance, near=None)
        options = close._training() | ({} if warm else {"max_steps": 0})
        near = neighbourhood(self.train_design, self.train_targets, mask, **options)
        return dataclasses.replace(close, near=near)

    def _training(self) -> dict[str, Any]:
        return {"l2": self.l2, "tolerance": self.tolerance, "max_steps": self.max_steps}


def logistic_utility(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    metric: Metric = "accuracy",
    l2: float = 1.0,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
) -> LogisticUtility:
    """Utility by training a multinomial logistic regression on the subset.

    Features are standardised by the whole training set. Every coefficient, the intercept too, is
    penalised, so each subset has one best model, a single example or class too. No examples give
    equal probabilities: accuracy 1/C over the C classes met on either side, log-likelihood −log C.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels; they are read, so they cannot be traced.
        valid_features: number[M, ...].
        valid_labels: int[M].
        metric: "accuracy" (ties shared) or "log_likelihood" (mean over validation, in nats).
        l2: penalty (l2 / 2)‖coefficients‖² beside the sum of the losses; 1 / `C` of
            scikit-learn for three classes or more, 2 / `C` for two.
        tolerance: train until the largest gradient entry per example is at most this. The default
            is enough for accuracy; differences of single examples in the log-likelihood want 1e-5.
        max_steps: train no longer than so many steps, whatever the gradient.

    Returns:
        `LogisticUtility`, a pytree to call with a mask.

    Raises:
        InputError: for sets that `check_sets` refuses, traced labels, a single class, or an
            option out of range.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
        >>> utility = logistic_utility(x, y, x, y)
        >>> evaluate(utility, jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])).tolist()
        [1.0, 0.75, 0.5]
    """
    if metric not in ("accuracy", "log_likelihood"):
        raise InputError(f'metric is {metric!r}: "accuracy" or "log_likelihood"')
    check_positive(l2, "l2")
    check_positive(tolerance, "tolerance")
    check_count(max_steps, "max_steps")
    sets = check_sets(train_features, train_labels, valid_features, valid_labels)
    train, valid = standardised_designs(sets.train_features, sets.valid_features)
    train_targets, valid_targets = one_hot_labels(sets, train.dtype)
    return LogisticUtility(
        train, train_targets, valid, valid_targets, l2, tolerance, metric, max_steps
    )


def one_hot_labels(
    sets: LabelledSets, dtype: jnp.dtype
) -> tuple[Float[jax.Array, "N C"], Float[jax.Array, "M C"]]:
    """Both sides' labels over all classes met, one-hot.

    Raises:
        InputError: for traced labels, or a single class.
    """
    if sets.classes is None:
        raise InputError(
            "the labels are traced: the number of classes must be known, so close over the "
            "labels instead of passing them through jit"
        )
    num_classes = len(sets.classes)
    if num_classes < 2:
        raise InputError(
            f"every label is {sets.classes[0]}: a classifier needs at least two classes"
        )
    return (
        jax.nn.one_hot(sets.train_labels, num_classes, dtype=dtype),
        jax.nn.one_hot(sets.valid_labels, num_classes, dtype=dtype),
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("order", "votes"),
    meta_fields=("num_neighbours",),
)
@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, so that jit takes it
class KNNUtility:
    """Share of right votes among the nearest neighbours; made by `knn_utility`."""

    order: Int[jax.Array, "M N"]
    votes: Float[jax.Array, "M N"]
    num_neighbours: int

    def __call__(self, mask: Float[jax.Array, " N"]) -> Float[jax.Array, ""]:
        """Let the nearest examples where `mask` is 1 vote."""
        present = mask[self.order] > 0
        near = present & (jnp.cumsum(present, axis=1) <= self.num_neighbours)
        return jnp.mean(jnp.sum(self.votes, axis=1, where=near)) / self.num_neighbours


def knn_utility(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    num_neighbours: int = 5,
    batch_size: int = 64,
) -> KNNUtility:
    """The utility whose Shapley values `knn_shapley` gives in closed form.

    Worth of a subset S: the mean over validation examples of (right labels among the min(K, |S|)
    nearest) / K; the empty subset has 0. The order of neighbours, M × N numbers, is kept.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        num_neighbours: K.
        batch_size: validation examples sorted at a time.

    Returns:
        `KNNUtility`, a pytree to call with a mask.

    Raises:
        InputError: for sets that `check_sets` refuses, or counts that are not positive.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[0.0], [1.0]], np.float32), np.array([0, 1])
        >>> utility = knn_utility(x, y, x, y, num_neighbours=1)
        >>> float(utility(jnp.ones(2))), float(utility(jnp.zeros(2)))
        (1.0, 0.0)
    """
    check_count(num_neighbours, "num_neighbours")
    check_count(batch_size, "batch_size")
    sets = check_sets(train_features, train_labels, valid_features, valid_labels)
    train, valid = centre_together(sets.train_features, sets.valid_features)

    def nearest_first(row):
        return jnp.argsort(squared_distances(row[None, :], train)[0], stable=True)

    order = map_in_batches(nearest_first, valid, batch_size=batch_size)
    labels = jnp.asarray(sets.train_labels)
    votes = labels[order] == jnp.asarray(sets.valid_labels)[:, None]
    return KNNUtility(order, votes.astype(train.dtype), num_neighbours)
