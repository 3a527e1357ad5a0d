"""Data-OOB: an example is worth how often models trained without it get it right."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxinf.errors import check_count, check_key, check_positive
from jaxinf.typing import AnyArray
from jaxinf.valuation.banzhaf import refuse_too_few
from jaxinf.valuation.batching import map_in_batches
from jaxinf.valuation.inputs import check_sets
from jaxinf.valuation.logistic import correctness, fit_logistic, standardised_designs
from jaxinf.valuation.semivalues import SampledValues
from jaxinf.valuation.utility import one_hot_labels


def data_oob(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    key: jax.Array,
    num_models: int = 200,
    l2: float = 1.0,
    tolerance: float = 1e-3,
    batch_size: int = 32,
) -> SampledValues:
    """Data-OOB: accuracy on each example of bagged models that did not see it.

    Every model is a logistic regression (standardised features, as in `logistic_utility`) of N
    examples drawn with replacement; an example is out of about 37 % of these bags. The
    validation set is checked but not used: the method values the training set by itself. Not to
    be jitted over the labels, which are read.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...], not used.
        valid_labels: int[M], not used.
        key: random key.
        num_models: bags.
        l2: penalty (l2 / 2)‖coefficients‖² beside the sum of the losses; 1 / `C` of
            scikit-learn for three classes or more, 2 / `C` for two.
        tolerance: train until the largest gradient entry per example is at most this.
        batch_size: models trained at once. The result does not depend on it, but for rounding.

    Returns:
        `SampledValues`, `values` in [0, 1], higher = more worth having. Traced, where it cannot
        be refused, an example that was out of fewer than two bags gets NaN.

    Raises:
        InputError: for sets that `check_sets` refuses, traced labels, a single class, an option
            out of range, or too few bags for an example.

    Reference:
        Kwon and Zou, "Data-OOB: Out-of-bag Estimate as a Simple and Efficient Data Value",
        ICML 2023.

    Example:
        >>> import numpy as np
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0], [-1.5]], np.float32)
        >>> y = np.array([0, 0, 1, 1, 1])
        >>> result = data_oob(x, y, x, y, key=jax.random.key(0), num_models=50)
        >>> int(result.values.argmin())
        4
    """
    check_key(key)
    check_count(num_models, "num_models", minimum=2)
    check_positive(l2, "l2")
    check_positive(tolerance, "tolerance")
    check_count(batch_size, "batch_size")
    sets = check_sets(train_features, train_labels, valid_features, valid_labels)
    design, _ = standardised_designs(sets.train_features, sets.valid_features)
    targets, _ = one_hot_labels(sets, design.dtype)
    values, errors, fewest = _bag(
        design,
        targets,
        jax.random.split(key, num_models),
        l2,
        tolerance,
        batch_size=batch_size,
    )
    refuse_too_few(fewest, "num_models", num_models, "out of bag in")
    return SampledValues(values, errors, num_models)


@functools.partial(jax.jit, static_argnames="batch_size")
def _bag(
    design: Float[jax.Array, "N d"],
    targets: Float[jax.Array, "N C"],
    keys: jax.Array,
    l2: float,
    tolerance: float,
    *,
    batch_size: int,
) -> tuple[Float[jax.Array, " N"], Float[jax.Array, " N"], Int[jax.Array, " N"]]:
    count = design.shape[0]

    def one_bag(key):
        counts = jnp.bincount(jax.random.randint(key, (count,), 0, count), length=count)
        fit = fit_logistic(design, targets, counts, l2=l2, tolerance=tolerance)
        logits = jnp.matmul(design, fit.coefficients, precision=jax.lax.Precision.HIGHEST)
        return counts == 0, correctness(logits, targets)

    outside, correct = map_in_batches(one_bag, keys, batch_size=batch_size)
    number = jnp.sum(outside, axis=0)
    mean = jnp.mean(correct, axis=0, where=outside)
    variance = jnp.var(correct, axis=0, where=outside, ddof=1)
    values = jnp.where(number < 2, jnp.nan, mean)
    return values, jnp.sqrt(variance / number), number
