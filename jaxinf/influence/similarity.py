"""Nearest neighbours in a feature space: the trivial baseline that must stand beside influence."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PyTree


class FeatureState(NamedTuple):
    """The model and the features of each query."""

    params: Params
    features: jax.Array


def representation_similarity(
    feature_fn: Callable[[Params, Batch], jax.Array],
    *,
    metric: Literal["cosine", "euclidean", "dot"] = "cosine",
) -> Attributor:
    """Similarity of features: of a hidden layer, or of the raw input.

    Sign: higher = more alike. Nothing here knows of losses: high is not helpful, only near.

    Args:
        feature_fn: `(params, batch) -> float[B, ...]`; trailing axes are flattened.
        metric: `"cosine"` in [−1, 1], `"euclidean"` (minus the squared distance) or `"dot"`. A
            group's features are the mean over the group.

    Returns:
        An `Attributor` without diagnostics.

    Raises:
        InputError: for an unknown metric.

    Example:
        >>> pixels = representation_similarity(lambda params, batch: batch["x"])
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
        >>> pixels.score(pixels.prepare((), batch), batch).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if metric not in ("cosine", "euclidean", "dot"):
        raise InputError(f"metric must be 'cosine', 'euclidean' or 'dot', not {metric!r}")

    def features(params: Params, batch: Batch) -> jax.Array:
        found = feature_fn(params, batch)
        found = found.reshape(found.shape[0], -1).astype(jnp.float32)
        if metric == "cosine":
            norms = jnp.linalg.norm(found, axis=1, keepdims=True)
            found = found / jnp.where(norms > 0, norms, 1)
        return found

    @jax.jit
    def embed(params: Params, groups: QueryGroups) -> FeatureState:
        count, size = groups.weights.shape
        rows = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), groups.examples)
        of_rows = features(params, rows).reshape(count, size, -1)
        return FeatureState(params, jnp.einsum("kn,knd->kd", groups.weights, of_rows))

    def prepare(params: Params, queries: PyTree, train: Any = None) -> FeatureState:
        return embed(params, as_groups(queries))

    def score(state: FeatureState, batch: Batch) -> jax.Array:
        found = features(state.params, batch)
        dots = state.features @ found.T
        if metric != "euclidean":
            return dots
        squares = jnp.sum(state.features**2, axis=1)[:, None] + jnp.sum(found**2, axis=1)[None, :]
        return 2 * dots - squares

    return Attributor(prepare, score, None, None, lambda k: 1.0, f"similarity({metric})")
