"""Nearest neighbours in a feature space: the trivial baseline that must stand beside influence."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxinf.engine import Stream
from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.passes import only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PyTree


class FeatureState(NamedTuple):
    """The model, how features are centred and whitened, and the features of each query.

    Attributes:
        params: of the model.
        mean: float[D], of the training set's features; None unless they are whitened.
        whitening: float[D, D], likewise.
        features: float[K, D], of the queries.
    """

    params: Params
    mean: jax.Array | None
    whitening: jax.Array | None
    features: jax.Array


def representation_similarity(
    feature_fn: Callable[[Params, Batch], jax.Array],
    *,
    metric: Literal["cosine", "euclidean", "dot", "whitened"] = "cosine",
    damping: float = 0.01,
) -> Attributor:
    """Similarity of features: of a hidden layer, or of the raw input.

    Sign: higher = more alike. Nothing here knows of losses: high is not helpful, only near.

    Args:
        feature_fn: `(params, batch) -> float[B, ...]`; trailing axes are flattened.
        metric: `"cosine"` in [−1, 1], `"euclidean"` (minus the squared distance), `"dot"`, or
            `"whitened"`: the cosine of features less the training set's mean, over the root of its
            covariance, so that what most examples have in common does not count. A group's
            features are the mean over the group.
        damping: of that covariance, in units of its mean eigenvalue.

    Returns:
        An `Attributor` without diagnostics; of `"whitened"`, `prepare` passes over the training
        set, and holds a matrix of D × D.

    Raises:
        InputError: for an unknown metric or a negative damping; by `prepare`, for a training set
            that can be read only once and is to be whitened.

    Example:
        >>> pixels = representation_similarity(lambda params, batch: batch["x"])
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
        >>> pixels.score(pixels.prepare((), batch), batch).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if metric not in ("cosine", "euclidean", "dot", "whitened"):
        raise InputError(
            f"metric must be 'cosine', 'euclidean', 'dot' or 'whitened', not {metric!r}"
        )
    if not damping >= 0:
        raise InputError(f"damping must not be negative, got {damping}")

    def raw(params: Params, batch: Batch) -> jax.Array:
        found = feature_fn(params, batch)
        return found.reshape(found.shape[0], -1).astype(jnp.float32)

    def features(
        params: Params, mean: jax.Array | None, whitening: jax.Array | None, batch: Batch
    ) -> jax.Array:
        found = raw(params, batch)
        if mean is not None and whitening is not None:
            # what hardly varies is blown up: it needs every bit
            found = jnp.matmul(found - mean[None, :], whitening, precision="highest")
        if metric in ("cosine", "whitened"):
            norms = jnp.linalg.norm(found, axis=1, keepdims=True)
            found = found / jnp.where(norms > 0, norms, 1)
        return found

    @jax.jit
    def embed(
        params: Params, mean: jax.Array | None, whitening: jax.Array | None, groups: QueryGroups
    ) -> FeatureState:
        count, size = groups.weights.shape
        rows = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), groups.examples)
        of_rows = features(params, mean, whitening, rows).reshape(count, size, -1)
        means = jnp.einsum("kn,knd->kd", groups.weights, of_rows)
        return FeatureState(params, mean, whitening, means)

    @jax.jit
    def summed(params: Params, batch: Batch, mask: jax.Array) -> jax.Array:
        return jnp.sum(raw(params, batch) * mask[:, None], axis=0)

    @jax.jit
    def scattered(params: Params, mean: jax.Array, batch: Batch, mask: jax.Array) -> jax.Array:
        found = (raw(params, batch) - mean[None, :]) * mask[:, None]
        return jnp.matmul(found.T, found, precision="highest")

    def prepare(params: Params, queries: PyTree, train: Stream | None = None) -> FeatureState:
        groups = as_groups(queries)
        if metric != "whitened":
            return embed(params, None, None, groups)
        if only_shapes(train, params, queries):
            first = jax.tree.map(lambda a: a[:, 0], groups.examples)
            size = jax.eval_shape(raw, params, first).shape[1]
            return embed(params, jnp.full(size, jnp.nan), jnp.full((size, size), jnp.nan), groups)
        rows = training_rows(train, "whitened similarity")
        mean = rows.total(lambda batch, mask: summed(params, batch, mask)) / rows.count
        scatter = rows.total(lambda batch, mask: scattered(params, mean, batch, mask))
        return embed(params, mean, _whitening(scatter / rows.count, damping), groups)

    def score(state: FeatureState, batch: Batch) -> jax.Array:
        found = features(state.params, state.mean, state.whitening, batch)
        dots = state.features @ found.T
        if metric != "euclidean":
            return dots
        squares = jnp.sum(state.features**2, axis=1)[:, None] + jnp.sum(found**2, axis=1)[None, :]
        return 2 * dots - squares

    name = f"similarity({metric})" if metric != "whitened" else f"similarity(whitened, {damping:g})"
    return Attributor(prepare, score, None, None, lambda k: 1.0, name)


@jax.jit
def _whitening(covariance: jax.Array, damping: float) -> jax.Array:
    """The inverse root of a covariance; directions without any variance count for nothing."""
    values, vectors = jnp.linalg.eigh(covariance)
    damped = jnp.maximum(values, 0) + damping * jnp.mean(values)
    is_seen = damped > 1e-6 * jnp.max(damped)
    roots = jnp.where(is_seen, 1 / jnp.sqrt(jnp.where(is_seen, damped, 1)), 0)
    return vectors * roots[None, :]
