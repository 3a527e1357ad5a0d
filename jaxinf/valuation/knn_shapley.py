"""KNN-Shapley: exact Shapley values of the nearest-neighbour classifier, no model trained."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxinf.errors import check_count
from jaxinf.typing import AnyArray
from jaxinf.valuation.distances import centre_together, squared_distances
from jaxinf.valuation.inputs import Values, check_sets


def knn_shapley(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    num_neighbours: int = 5,
    batch_size: int = 64,
) -> Values:
    """Exact Shapley value of each training example for a K-nearest-neighbour classifier.

    The utility of a subset S is the mean over validation examples of the share of correct votes,
    (number of the min(K, |S|) nearest examples in S with the right label) / K. Values sum to
    the utility of the whole training set. Distances are Euclidean, so scale tabular columns
    first. Of examples equally far away the earlier row counts as nearer. Jits, with
    `num_neighbours` and `batch_size` static.

    Args:
        train_features: number[N, ...].
        train_labels: int[N] class labels.
        valid_features: number[M, ...].
        valid_labels: int[M].
        num_neighbours: K; may exceed N.
        batch_size: validation examples sorted at a time; memory grows as N · batch_size.

    Returns:
        `Values`, `values` float[N] in [−1/K, 1/K], higher = more worth having.

    Raises:
        InputError: for sets that `check_sets` refuses, or counts that are not positive.

    Reference:
        Jia et al., "Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms",
        VLDB 2019, Theorem 1, extended to N < K, where every example votes.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [9.0]], np.float32)
        >>> knn_shapley(x, np.array([0, 1, 1]), x[:1], np.array([0]), num_neighbours=1).values
        Array([1., 0., 0.], dtype=float32)
    """
    check_count(num_neighbours, "num_neighbours")
    check_count(batch_size, "batch_size")
    sets = check_sets(train_features, train_labels, valid_features, valid_labels)
    train, valid = centre_together(sets.train_features, sets.valid_features)
    values = _mean_over_valid(
        train,
        jnp.asarray(sets.train_labels),
        valid,
        jnp.asarray(sets.valid_labels),
        num_neighbours=num_neighbours,
        batch_size=min(batch_size, valid.shape[0]),
    )
    return Values(values)


def shapley_by_rank(
    correct: Bool[jax.Array, " N"], num_neighbours: int, dtype: jnp.dtype = jnp.float32
) -> Float[jax.Array, " N"]:
    """Shapley values for one validation example, training examples from nearest to farthest.

    The recursion of Theorem 1, s_i = s_{i+1} + (c_i − c_{i+1}) min(K, i) / (K i), unrolled into
    one sum from the far end.

    Args:
        correct: bool[N], whether the i-th nearest example has the validation example's label.
        num_neighbours: K.
        dtype: of the values.

    Returns:
        float[N], in the same order.

    Example:
        >>> shapley_by_rank(jnp.array([True, False]), 1).tolist()
        [1.0, 0.0]
    """
    rank = jnp.arange(1, correct.shape[0] + 1)
    share = jnp.minimum(num_neighbours, rank).astype(dtype) / (num_neighbours * rank)
    correct = correct.astype(dtype)
    steps = correct - jnp.append(correct[1:], jnp.zeros(1, dtype))
    return jax.lax.cumsum(steps * share.astype(dtype), reverse=True)


@functools.partial(jax.jit, static_argnames=("num_neighbours", "batch_size"))
def _mean_over_valid(
    train: Float[jax.Array, "N d"],
    train_labels: Int[jax.Array, " N"],
    valid: Float[jax.Array, "M d"],
    valid_labels: Int[jax.Array, " M"],
    *,
    num_neighbours: int,
    batch_size: int,
) -> Float[jax.Array, " N"]:
    def of_one(distances, label):
        order = jnp.argsort(distances, stable=True)
        sorted_values = shapley_by_rank(
            train_labels[order] == label, num_neighbours, distances.dtype
        )
        return jnp.zeros_like(distances).at[order].set(sorted_values, unique_indices=True)

    def add_batch(total, batch):
        features, labels, real = batch
        values = jax.vmap(of_one)(squared_distances(features, train), labels)
        return total + jnp.sum(values, axis=0, where=real[:, None]), None

    count = valid.shape[0]
    padding = -count % batch_size
    batches = jax.tree.map(
        lambda a: jnp.pad(a, ((0, padding), *((0, 0),) * (a.ndim - 1))).reshape(
            -1, batch_size, *a.shape[1:]
        ),
        (valid, valid_labels, jnp.ones(count, bool)),
    )
    total, _ = jax.lax.scan(add_batch, jnp.zeros(train.shape[0], train.dtype), batches)
    return total / count
