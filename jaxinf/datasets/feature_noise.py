"""Inputs with Gaussian noise on some rows, and which rows these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Bool

from jaxinf.datasets.arrays import (
    Examples,
    as_mask,
    cast_back,
    check_labelled,
    check_rate,
    draw_rows,
)
from jaxinf.errors import InputError


@register_dataclass
@dataclass(frozen=True, eq=False)
class FeatureNoise:
    """Examples with noisy inputs, and the truth about them.

    Attributes:
        examples: as given, with `"x"` replaced, rows in the same order.
        is_noisy: bool[N], which rows had noise added.
    """

    examples: Examples
    is_noisy: Bool[np.ndarray, " N"]


def feature_noise(examples: Mapping[str, Any], rate: float, std: float, seed: int) -> FeatureNoise:
    """Add Gaussian noise to the inputs of exactly `round(rate * N)` examples.

    Args:
        examples: `{"x": [N, ...], "y": int[N]}`.
        rate: fraction of the examples that get noise.
        std: standard deviation, in the units of `"x"`, positive. Integer inputs are rounded and
            clipped to the range of their dtype; floating-point ones are not clipped.
        seed: which examples, and the noise.

    Returns:
        The examples and the truth.

    Raises:
        InputError: for a rate outside [0, 1], or a standard deviation that is not positive.

    Example:
        >>> clean = {"x": np.zeros((4, 2), np.float32), "y": np.zeros(4, int)}
        >>> noisy = feature_noise(clean, rate=0.5, std=1.0, seed=0)
        >>> bool((noisy.is_noisy == noisy.examples["x"].any(axis=1)).all())
        True
    """
    check_rate(rate)
    if not (std > 0 and np.isfinite(std)):
        raise InputError(f"std is {std}: give a positive number, in the units of the inputs")
    host, count = check_labelled(examples)
    rng = np.random.default_rng(seed)
    rows = draw_rows(rng, np.arange(count), rate)
    inputs = host["x"].copy()
    picked = inputs[rows].astype(np.float64)
    inputs[rows] = cast_back(picked + rng.normal(0, std, picked.shape), inputs.dtype)
    return FeatureNoise({**host, "x": inputs}, as_mask(rows, count))
