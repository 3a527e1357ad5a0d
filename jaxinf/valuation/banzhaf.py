"""Data Banzhaf: every subset counts alike, and every sampled subset serves all examples."""

import functools

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Bool, Float, Int

from jaxinf.errors import InputError, check_count, check_key
from jaxinf.typing import AnyArray
from jaxinf.valuation.semivalues import SampledValues, check_defined, prepare_utility
from jaxinf.valuation.utility import Utility, evaluate


def data_banzhaf(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    key: jax.Array,
    num_subsets: int = 1000,
    utility: Utility | None = None,
    batch_size: int = 64,
) -> SampledValues:
    """Data Banzhaf: the mean contribution to a subset of the others drawn by fair coins.

    By maximum sample reuse: the mean utility of the sampled subsets with the example, less the
    mean of those without it. The values need not sum to the utility of the whole set.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        key: random key.
        num_subsets: subsets drawn, each one evaluation.
        utility: function of a mask float[N]; by default `logistic_utility` of the sets. With it
            given, the function can be jitted; without it, the labels must be concrete.
        batch_size: models trained at once. The result does not depend on it, but for rounding.

    Returns:
        `SampledValues`, higher = more worth having. Under jit, where it cannot be refused, an
        example that was in or out of fewer than two subsets gets NaN.

    Raises:
        InputError: for sets that `check_sets` refuses, an option out of range, too few subsets
            for an example, or a utility that gives NaN.

    Reference:
        Wang and Jia, "Data Banzhaf: A Robust Data Valuation Framework for Machine Learning",
        AISTATS 2023 (the maximum sample reuse estimator).

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
        >>> either = lambda mask: jnp.max(mask)
        >>> result = data_banzhaf(x, y, x, y, utility=either, key=jax.random.key(0))
        >>> bool(abs(result.values[0] - 0.5) < 4 * result.standard_errors[0])
        True
    """
    check_key(key)
    check_count(num_subsets, "num_subsets", minimum=4)
    check_count(batch_size, "batch_size")
    sets = (train_features, train_labels, valid_features, valid_labels)
    utility, count = prepare_utility(utility, *sets)
    inside = jax.random.bernoulli(key, 0.5, (num_subsets, count))
    utilities = evaluate(utility, inside.astype(jnp.result_type(float)), batch_size=batch_size)
    values, errors, fewest = _difference_of_means(inside, utilities)
    refuse_too_few(fewest, "num_subsets", num_subsets, "in or out of")
    return SampledValues(check_defined(values), errors, num_subsets)


def refuse_too_few(fewest: jax.Array, name: str, value: int, what: str) -> None:
    """Refuse samples that hold fewer than two for some example. Not read when traced.

    Raises:
        InputError: naming the option to raise.
    """
    if not isinstance(fewest, Tracer) and int(jnp.min(fewest)) < 2:
        raise InputError(
            f"{name} is {value}: example {int(jnp.argmin(fewest))} was {what} only "
            f"{int(jnp.min(fewest))} of them, so its value is unknown; draw more"
        )


@functools.partial(jax.jit)
def _difference_of_means(
    inside: Bool[jax.Array, "S N"], utilities: Float[jax.Array, " S"]
) -> tuple[Float[jax.Array, " N"], Float[jax.Array, " N"], Int[jax.Array, " N"]]:
    # differences do not change, squares keep their digits
    centred = (utilities - jnp.mean(utilities))[:, None]

    def moments(chosen):
        number = jnp.sum(chosen, axis=0)
        mean = jnp.mean(jnp.broadcast_to(centred, chosen.shape), axis=0, where=chosen)
        squares = jnp.sum(jnp.square(centred - mean[None, :]), axis=0, where=chosen)
        return mean, squares / (number - 1) / number, number

    mean_in, variance_in, number_in = moments(inside)
    mean_out, variance_out, number_out = moments(~inside)
    fewest = jnp.minimum(number_in, number_out)
    values = jnp.where(fewest < 2, jnp.nan, mean_in - mean_out)
    return values, jnp.sqrt(variance_in + variance_out), fewest
