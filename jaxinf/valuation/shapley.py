"""Data Shapley by truncated permutations, and Beta Shapley by random subsets."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxinf.errors import check_count, check_key, check_positive
from jaxinf.typing import AnyArray
from jaxinf.valuation.batching import map_in_batches
from jaxinf.valuation.semivalues import (
    SampledValues,
    check_defined,
    marginal_contributions,
    prepare_utility,
    summarise,
)
from jaxinf.valuation.utility import LogisticUtility, Utility


def data_shapley(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    key: jax.Array,
    num_permutations: int = 100,
    truncation: float = 0.01,
    utility: Utility | None = None,
    batch_size: int = 32,
) -> SampledValues:
    """Data Shapley: what an example adds to those before it in a random order, on average.

    Truncated Monte Carlo: once a prefix is worth the whole set to within `truncation`, the rest
    of its order counts as adding nothing. Values sum to U(all) − U(none) to within `truncation`;
    with 0 they do exactly and are unbiased, and every order costs N evaluations. Where the empty
    set already is within `truncation` of the whole, all values are 0.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        key: random key.
        num_permutations: random orders, at least 2.
        truncation: in units of the utility; 0 for none.
        utility: function of a mask float[N]; by default `logistic_utility` of the sets. With it
            given, the function can be jitted; without it, the labels must be concrete.
        batch_size: orders followed, and so models trained, at once. The result does not depend
            on it, but for rounding.

    Returns:
        `SampledValues`, higher = more worth having. The standard errors tell what other orders
        would change, not the bias of the truncation.

    Raises:
        InputError: for sets that `check_sets` refuses, an option out of range, or a utility
            that gives NaN.

    Reference:
        Ghorbani and Zou, "Data Shapley: Equitable Valuation of Data for Machine Learning",
        ICML 2019, Algorithm 1.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
        >>> both = lambda mask: jnp.prod(mask)
        >>> key = jax.random.key(0)
        >>> result = data_shapley(x, y, x, y, utility=both, key=key, truncation=0)
        >>> float(result.values.sum()), bool(abs(result.values[0] - 0.5) < 0.2)
        (1.0, True)
    """
    check_key(key)
    check_count(num_permutations, "num_permutations", minimum=2)
    check_positive(truncation, "truncation", zero=True)
    check_count(batch_size, "batch_size")
    sets = (train_features, train_labels, valid_features, valid_labels)
    utility, count = prepare_utility(utility, *sets)
    values, errors, steps = _follow_permutations(
        utility,
        jax.random.split(key, num_permutations),
        truncation,
        count=count,
        batch_size=batch_size,
    )
    return SampledValues(check_defined(values), errors, steps + 2)


@functools.partial(jax.jit, static_argnames=("count", "batch_size"))
def _follow_permutations(
    utility: Utility, keys: jax.Array, truncation: float, *, count: int, batch_size: int
) -> tuple[Float[jax.Array, " N"], Float[jax.Array, " N"], Int[jax.Array, ""]]:
    nothing = jnp.zeros(count)
    empty, full = utility(nothing), utility(nothing + 1)

    def follow(key):
        order = jax.random.permutation(key, count)

        def unfinished(state):
            position, _, worth, _ = state
            # not `>=`, so that NaN goes on and shows in the values
            return (position < count) & ~(jnp.abs(full - worth) < truncation)

        def add_next(state):
            position, mask, worth, marginals = state
            example = order[position]
            mask = mask.at[example].set(1)
            now = utility(mask)
            return position + 1, mask, now, marginals.at[example].set(now - worth)

        start = (jnp.zeros((), jnp.int32), nothing, empty, jnp.zeros(count, empty.dtype))
        position, _, _, marginals = jax.lax.while_loop(unfinished, add_next, start)
        return marginals, position

    # vmapped, the loop goes on until the last order of the batch is truncated
    marginals, steps = map_in_batches(follow, keys, batch_size=batch_size)
    return *summarise(marginals), jnp.sum(steps)


def beta_shapley(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    key: jax.Array,
    alpha: float = 16.0,
    beta: float = 1.0,
    num_subsets: int = 30,
    utility: Utility | None = None,
    batch_size: int = 64,
) -> SampledValues:
    """Beta(α, β)-Shapley: contributions to subsets of preferred sizes.

    The weight of subsets of j − 1 others is proportional to B(j + β − 1, N − j + α): with α > β
    small subsets count more, where an example's contribution stands out from the noise;
    Beta(1, 1) is the Shapley value.

    Unbiased without importance weights: that weight is the chance of a subset drawn by taking
    each example with probability t, where t itself is drawn from Beta(β, α). Whether example i
    is in the drawn S says nothing about the others given t, so toggling each example of S in
    turn gives all N contributions from N + 1 evaluations.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        key: random key.
        alpha: α, positive.
        beta: β, positive.
        num_subsets: subsets drawn, at least 2; each costs N + 1 evaluations.
        utility: function of a mask float[N]; by default `logistic_utility` of the sets. With it
            given, the function can be jitted; without it, the labels must be concrete.
        batch_size: models trained at once. The result does not depend on it, but for rounding.

    Returns:
        `SampledValues`, higher = more worth having.

    Raises:
        InputError: for sets that `check_sets` refuses, an option out of range, or a utility
            that gives NaN.

    Reference:
        Kwon and Zou, "Beta Shapley: a Unified and Noise-reduced Data Valuation Framework for
        Machine Learning", AISTATS 2022 (the weights; the sampling is ours).

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
        >>> worth = lambda mask: mask @ jnp.array([3.0, -1.0])
        >>> result = beta_shapley(x, y, x, y, utility=worth, key=jax.random.key(0))
        >>> np.allclose(result.values, [3.0, -1.0]), float(result.standard_errors.max()) < 1e-6
        (True, True)
    """
    check_key(key)
    check_positive(alpha, "alpha")
    check_positive(beta, "beta")
    check_count(num_subsets, "num_subsets", minimum=2)
    check_count(batch_size, "batch_size")
    sets = (train_features, train_labels, valid_features, valid_labels)
    utility, count = prepare_utility(utility, *sets)
    masks = _draw_subsets(key, alpha, beta, shape=(num_subsets, count))
    values, errors = _toggle_each(utility, masks, batch_size=batch_size)
    return SampledValues(check_defined(values), errors, num_subsets * (count + 1))


@functools.partial(jax.jit, static_argnames="shape")
def _draw_subsets(
    key: jax.Array, alpha: float, beta: float, *, shape: tuple[int, int]
) -> Float[jax.Array, "D N"]:
    share_key, subset_key = jax.random.split(key)
    share = jax.random.beta(share_key, beta, alpha, (shape[0], 1))
    return jax.random.bernoulli(subset_key, share, shape).astype(share.dtype)


@functools.partial(jax.jit, static_argnames="batch_size")
def _toggle_each(
    utility: Utility, masks: Float[jax.Array, "D N"], *, batch_size: int
) -> tuple[Float[jax.Array, " N"], Float[jax.Array, " N"]]:
    def toggle(mask: jax.Array) -> jax.Array:
        close = (
            utility.around(mask, warm=False) if isinstance(utility, LogisticUtility) else utility
        )
        return marginal_contributions(close, mask, batch_size=batch_size)

    return summarise(jax.lax.map(toggle, masks))
