"""Semivalues: an example is worth what it adds, on average, to subsets of the others.

They differ only in which subsets count: all the others (leave one out), every size alike
(Shapley), small sizes more (Beta Shapley), every subset alike (Banzhaf). Each accepts any
utility; without one, the validation accuracy of a logistic regression.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from jaxinf.errors import InputError, check_count
from jaxinf.typing import AnyArray
from jaxinf.valuation.batching import map_in_batches
from jaxinf.valuation.inputs import Values, check_sets
from jaxinf.valuation.utility import LogisticUtility, Utility, as_pytree, logistic_utility


class SampledValues(NamedTuple):
    """Values estimated by random sampling, with what the sampling leaves open.

    Attributes:
        values: float[N], higher = more worth having.
        standard_errors: float[N], standard error of each value over repeated sampling with new
            keys, the data being given.
        num_evaluations: int, models trained, or utilities evaluated.
    """

    values: Float[jax.Array, " N"]
    standard_errors: Float[jax.Array, " N"]
    num_evaluations: jax.Array | int

    @property
    def reliability(self) -> Float[jax.Array, ""]:
        """Share of the variance among the values that is not sampling noise, at most 1.

        1 − mean(standard_errors²) / var(values): an estimate of the squared correlation between
        these values and fully converged ones. Near or under 0, sample more.
        """
        noise = jnp.mean(jnp.square(self.standard_errors))
        return 1 - noise / jnp.var(self.values, ddof=1)


def loo_values(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    utility: Utility | None = None,
    batch_size: int = 64,
) -> Values:
    """Leave one out: what the utility of the whole training set loses without each example.

    Exact, by N + 1 evaluations. With many examples a single one seldom moves the accuracy, so
    most values are 0: `logistic_utility(..., metric="log_likelihood")` tells more apart.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        utility: function of a mask float[N]; by default `logistic_utility` of the sets. Such a
            one is trained to a tolerance of 1e-5 at most, each model from that of all examples.
            With it given, the function can be jitted; without it, the labels must be concrete.
        batch_size: models trained at once.

    Returns:
        `Values`, `values` float[N] = U(all) − U(all but i), higher = more worth having.

    Raises:
        InputError: for sets that `check_sets` refuses, an option out of range, or a utility
            that gives NaN.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
        >>> loo_values(x, y, x, y, utility=lambda mask: mask @ jnp.array([3.0, -1.0])).values
        Array([ 3., -1.], dtype=float32)
    """
    check_count(batch_size, "batch_size")
    sets = (train_features, train_labels, valid_features, valid_labels)
    utility, count = prepare_utility(utility, *sets)
    everything = jnp.ones(count)
    if isinstance(utility, LogisticUtility):
        # one model of N - 1 examples is near that of all of them
        utility = _around(utility, everything)
    values = marginal_contributions(utility, everything, batch_size=batch_size)
    return Values(check_defined(values))


@jax.jit
def _around(utility: LogisticUtility, mask: jax.Array) -> LogisticUtility:
    return utility.around(mask)


@functools.partial(jax.jit, static_argnames="batch_size")
def marginal_contributions(
    utility: Utility, mask: Float[jax.Array, " N"], *, batch_size: int
) -> Float[jax.Array, " N"]:
    """What each example adds to the others of one subset: U(S ∪ i) − U(S without i).

    For an example in S the second term is left to compute, for one outside S the first; the
    other is U(S), so N + 1 evaluations serve all N.

    Args:
        utility: a pytree, see `as_pytree`.
        mask: float[N] of zeros and ones, S.
        batch_size: subsets evaluated together.

    Returns:
        float[N].

    Example:
        >>> utility = jax.tree_util.Partial(lambda mask: jnp.sum(mask) ** 2)
        >>> marginal_contributions(utility, jnp.array([1.0, 0.0]), batch_size=2).tolist()
        [1.0, 3.0]
    """
    count = mask.shape[0]
    toggled = map_in_batches(
        lambda i: utility(mask.at[i].set(1 - mask[i])), jnp.arange(count), batch_size=batch_size
    )
    return jnp.where(mask > 0, 1, -1) * (utility(mask) - toggled)


def prepare_utility(
    utility: Utility | None,
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
) -> tuple[Utility, int]:
    """Check the sets and the utility, or make the default one; also return N."""
    if utility is None:
        utility = logistic_utility(train_features, train_labels, valid_features, valid_labels)
        return utility, utility.train_design.shape[0]
    sets = check_sets(train_features, train_labels, valid_features, valid_labels)
    count = sets.train_features.shape[0]
    return as_pytree(utility, count), count


def check_defined(values: jax.Array) -> jax.Array:
    """Refuse values that a utility made NaN or infinite. Not read when traced.

    Raises:
        InputError: naming the first one.
    """
    if isinstance(values, Tracer):
        return values
    undefined = ~jnp.isfinite(values)
    if bool(jnp.any(undefined)):
        raise InputError(
            f"the value of example {int(jnp.argmax(undefined))} is not finite: the utility must "
            "be a finite number for every subset, the empty one too"
        )
    return values


def summarise(draws: Float[jax.Array, "D N"]) -> tuple[jax.Array, jax.Array]:
    """Mean over independent draws, and its standard error.

    Example:
        >>> [part.tolist() for part in summarise(jnp.array([[1.0], [3.0]]))]
        [[2.0], [1.0]]
    """
    errors = jnp.std(draws, axis=0, ddof=1) / jnp.sqrt(draws.shape[0])
    return jnp.mean(draws, axis=0), errors
