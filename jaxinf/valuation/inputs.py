"""A training set and a trusted validation set, checked once for every valuation method."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from jaxinf.errors import InputError, check_dtypes, check_examples, check_finite
from jaxinf.typing import AnyArray


class Valuation(Protocol):
    """What every method returns: at least the values, row for row as the training set came."""

    @property
    def values(self) -> AnyArray:
        """float[N], higher = more worth having."""
        ...


class Valuator(Protocol):
    """One protocol for all methods: two labelled sets in, a value per training example out.

    Options are keywords; `functools.partial` fixes them.
    """

    def __call__(
        self,
        train_features: AnyArray,
        train_labels: AnyArray,
        valid_features: AnyArray,
        valid_labels: AnyArray,
        /,
    ) -> Valuation:
        """Value the training examples by the validation set."""
        ...


class Values(NamedTuple):
    """The result of a method that has nothing to report beside its values.

    Attributes:
        values: float[N], higher = more worth having.
    """

    values: jax.Array


class LabelledSets(NamedTuple):
    """Two checked sets.

    Attributes:
        train_features: float[N, d].
        train_labels: int32[N], positions in `classes`.
        valid_features: float[M, d].
        valid_labels: int32[M], positions in `classes`.
        classes: the labels met on either side, sorted. Under tracing, where labels cannot be
            read, `None`; labels are then taken as they are.
    """

    train_features: Float[jax.Array, "N d"]
    train_labels: Int[AnyArray, " N"]
    valid_features: Float[jax.Array, "M d"]
    valid_labels: Int[AnyArray, " M"]
    classes: np.ndarray | None


def check_sets(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
) -> LabelledSets:
    """Check two labelled sets and give them one form.

    Args:
        train_features: number[N, ...]; trailing axes are flattened. Integers become float32.
        train_labels: int[N] class labels; any integers, not only 0 to C − 1.
        valid_features: number[M, ...].
        valid_labels: int[M].

    Returns:
        The sets with features as float and labels as positions among all classes met. Values
        are not read when they are traced.

    Raises:
        InputError: for an empty set, features and labels of unlike length, features of unlike
            width on the two sides or all the same, NaN or Inf, labels that are not integers.

    Example:
        >>> x = np.eye(3, dtype=np.float32)
        >>> sets = check_sets(x, np.array([7, 2, 7]), x, np.array([2, 2, 9]))
        >>> sets.classes.tolist(), sets.train_labels.tolist(), sets.valid_labels.tolist()
        ([2, 7, 9], [1, 0, 1], [0, 0, 2])
    """
    train, valid = check_both_features(train_features, valid_features)
    for labels, features, side in (
        (train_labels, train, "train"),
        (valid_labels, valid, "valid"),
    ):
        check_class_labels(labels, features.shape[0], side)
    if isinstance(train_labels, Tracer) or isinstance(valid_labels, Tracer):
        return LabelledSets(train, train_labels, valid, valid_labels, None)
    train_labels, valid_labels = np.asarray(train_labels), np.asarray(valid_labels)
    classes, positions = np.unique(
        np.concatenate([train_labels, valid_labels]), return_inverse=True
    )
    positions = positions.astype(np.int32)
    cut = len(train_labels)
    return LabelledSets(train, positions[:cut], valid, positions[cut:], classes)


def check_features(features: Any, name: str) -> Float[jax.Array, "N d"]:
    """Check one set of features; return it as float[N, d] on the device.

    Raises:
        InputError: naming what is wrong.

    Example:
        >>> check_features(np.ones((2, 3, 3), np.uint8), "train_features").shape
        (2, 9)
    """
    count = check_examples(features, name)
    if not isinstance(features, Tracer):
        check_finite(features, name, first_row=0)
    array = jnp.asarray(features).reshape(count, -1)
    if array.shape[1] == 0:
        raise InputError(f"{name} have no columns: shape {np.shape(features)}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)


def check_both_features(
    train_features: Any, valid_features: Any
) -> tuple[Float[jax.Array, "N d"], Float[jax.Array, "M d"]]:
    """Check the features of both sides, that they are of one width, and not all one point.

    Raises:
        InputError: naming what is wrong, and where.
    """
    train = check_features(train_features, "train_features")
    valid = check_features(valid_features, "valid_features")
    if train.shape[1] != valid.shape[1]:
        raise InputError(
            f"train_features have {train.shape[1]} columns and valid_features {valid.shape[1]}: "
            "both sets must be embedded the same way"
        )
    known = not (isinstance(train, Tracer) or isinstance(valid, Tracer))
    if known and not bool(jnp.any(train != train[:1]) | jnp.any(valid != train[:1])):
        raise InputError(
            "the features are constant: all examples of both sets are one point, so no distance "
            "tells them apart"
        )
    return train, valid


def check_class_labels(labels: Any, count: int, side: str) -> None:
    """Check that one side's labels are integers, one per example.

    Raises:
        InputError: naming the side.
    """
    if getattr(labels, "ndim", None) != 1:
        raise InputError(
            f"{side}_labels must be an array [{count}] of class labels, not of shape "
            f"{np.shape(labels)}"
        )
    if labels.shape[0] != count:
        raise InputError(
            f"{side}_features have {count} rows and {side}_labels {labels.shape[0]}: one label "
            "for each example"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"{side}_labels are {labels.dtype}, not integers: number the classes, or cut a "
            "regression target into classes with jaxinf.valuation.bin_targets"
        )
    check_dtypes(labels, f"{side}_labels")


def check_weights(weights: Any, count: int, name: str) -> Float[jax.Array, " N"]:
    """Check the masses of one side; return them scaled to a sum of one (uniform for `None`).

    Raises:
        InputError: for the wrong length, NaN, or a mass that is not positive.

    Example:
        >>> check_weights(np.array([1.0, 3.0], np.float32), 2, "train_weights").tolist()
        [0.25, 0.75]
    """
    if weights is None:
        return jnp.full(count, 1 / count)
    if np.shape(weights) != (count,):
        raise InputError(f"{name} must have shape [{count}], not {np.shape(weights)}")
    if not isinstance(weights, Tracer):
        check_dtypes(weights, name)
        check_finite(weights, name, first_row=0)
        bad = np.flatnonzero(np.asarray(weights) <= 0)
        if bad.size:
            raise InputError(
                f"{name}[{bad[0]}] is {np.asarray(weights)[bad[0]]}: masses must be positive; "
                "leave out the examples that have none"
            )
    weights = jnp.asarray(weights)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = weights.astype(jnp.float32)
    return weights / jnp.sum(weights)
