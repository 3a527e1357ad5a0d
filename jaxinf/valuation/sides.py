"""One labelled set as the transport sees it: read, checked, centred, its classes numbered."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinf.errors import InputError
from jaxinf.typing import AnyArray
from jaxinf.valuation.classes import ClassBlocks, class_blocks, soft_shares
from jaxinf.valuation.inputs import check_both_features, check_class_labels, check_weights


class ValuationWarning(UserWarning):
    """The values can be computed, but something about the sets makes them mean less."""


class Side(NamedTuple):
    """One labelled set.

    Attributes:
        features: float[n, d].
        labels: int32[n] in 0 .. C − 1, or float[n, C] shares.
        classes: [C], what the user calls them.
        weights: float[n], a sum of one.
    """

    features: jax.Array
    labels: AnyArray
    classes: np.ndarray
    weights: jax.Array

    @property
    def blocks(self) -> ClassBlocks:
        """Rows of each class."""
        return class_blocks(np.asarray(self.labels), len(self.classes))


def read_sides(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    train_weights: AnyArray | None = None,
    valid_weights: AnyArray | None = None,
) -> tuple[Side, Side]:
    """Check both sets, centre the features (the cost does not change, its round-off does).

    Raises:
        InputError: for an empty set, NaN or Inf, features of unlike width or all the same, labels
            that are neither integers nor shares, and masses that are not positive.
    """
    x, y = check_both_features(train_features, valid_features)
    x_labels, x_classes = _read_labels(train_labels, x.shape[0], "train")
    y_labels, y_classes = _read_labels(valid_labels, y.shape[0], "valid")
    a = check_weights(train_weights, x.shape[0], "train_weights")
    b = check_weights(valid_weights, y.shape[0], "valid_weights")
    dtype = jnp.result_type(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
    x, y = x.astype(dtype), y.astype(dtype)
    centre = (jnp.mean(x, axis=0) + jnp.mean(y, axis=0)) / 2
    return (
        Side(x - centre[None, :], x_labels, x_classes, a.astype(dtype)),
        Side(y - centre[None, :], y_labels, y_classes, b.astype(dtype)),
    )


def _read_labels(labels: AnyArray, count: int, side: str) -> tuple[AnyArray, np.ndarray]:
    if isinstance(labels, Tracer):
        raise InputError(
            f"{side}_labels are traced, but the classes decide the shape of the problem: close "
            "over the labels instead of passing them through jit"
        )
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.dtype.kind == "f":
        shares = soft_shares(labels, count, side)
        return shares, np.arange(shares.shape[1])
    check_class_labels(labels, count, side)
    classes, positions = np.unique(labels, return_inverse=True)
    return positions.astype(np.int32), classes


def warn_of_classes(train: Side, valid: Side) -> None:
    """Say in one line each which classes one side lacks, or has a single example of."""
    if train.labels.ndim == 1 and valid.labels.ndim == 1:
        for here, there, name, other, meaning in (
            (valid, train, "valid", "train", "no training example can stand for them"),
            (train, valid, "train", "valid", "their examples match no validation example"),
        ):
            missing = np.setdiff1d(here.classes, there.classes)
            if missing.size:
                warnings.warn(
                    f"{name}_labels have classes {_listed(missing)} that {other}_labels lack: "
                    f"{meaning}",
                    ValuationWarning,
                    stacklevel=4,
                )
    for side, name in ((train, "train"), (valid, "valid")):
        if side.labels.ndim == 1:
            single = side.classes[np.bincount(side.labels) == 1]
            if single.size:
                warnings.warn(
                    f"{name}_labels have a single example of classes {_listed(single)}: a label "
                    "distance from one example says little",
                    ValuationWarning,
                    stacklevel=4,
                )


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:10].tolist())
    return f"[{shown}{', ...' if len(values) > 10 else ''}]"
