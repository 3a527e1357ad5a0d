"""Sanity check: scores that explain the model must change when its parameters are scrambled."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_differentiable
from jaxinf.evaluation.correlation import spearman
from jaxinf.typing import Params


@dataclass(frozen=True)
class RandomisationCheck:
    """Scores of the trained model against scores of scrambled ones.

    Attributes:
        correlations: float64[D, K], Spearman correlation per draw and query; NaN where undefined.
        mean: their mean where defined; near 1, the scores do not depend on what was learnt.
    """

    correlations: Float[np.ndarray, "D K"]
    mean: float


def scramble(params: Params, key: jax.Array) -> Params:
    """Permute the entries of every leaf: the same numbers, with nothing learnt left in them.

    Args:
        params: pytree of floating-point arrays.
        key: random key.

    Returns:
        A pytree like `params`. A leaf whose entries are all alike, such as a bias of zeros, stays.

    Raises:
        InputError: for a pytree without arrays, or with others than floating-point ones.

    Example:
        >>> sorted(scramble({"w": jnp.arange(4.0)}, jax.random.key(0))["w"].tolist())
        [0.0, 1.0, 2.0, 3.0]
    """
    check_differentiable(params)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    mixed = [
        jax.random.permutation(each, jnp.ravel(leaf)).reshape(jnp.shape(leaf))
        for each, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, mixed)


def randomisation_check(
    score: Callable[[Params], ArrayLike],
    params: Params,
    *,
    key: jax.Array,
    num_draws: int = 3,
) -> RandomisationCheck:
    """Score with scrambled parameters and correlate with the scores of the trained ones.

    Args:
        score: `score(params) -> float[K, N]`, the method with its queries and training set.
        params: trained parameters.
        key: random key.
        num_draws: D, how often the parameters are scrambled.

    Returns:
        `RandomisationCheck`. What only looks at the inputs, such as the distance of pixels,
        gives exactly 1.

    Raises:
        InputError: as `spearman`, or for no draw at all.

    Reference:
        Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, for the idea.

    Example:
        >>> pixels = np.arange(6.0).reshape(2, 3)
        >>> randomisation_check(lambda params: pixels, jnp.arange(4.0), key=jax.random.key(0)).mean
        1.0
    """
    if num_draws < 1:
        raise InputError(f"num_draws is {num_draws}: at least 1")
    trained = np.asarray(score(params))
    drawn = [
        spearman(trained, score(scramble(params, k))) for k in jax.random.split(key, num_draws)
    ]
    correlations = np.stack(drawn).round(12)
    defined = correlations[~np.isnan(correlations)]
    return RandomisationCheck(correlations, float(defined.mean()) if defined.size else float("nan"))
