"""Nearest neighbours in a feature space as attribution: what each would be worth to the vote."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.passes import only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups
from jaxinf.typing import Batch, Params, PyTree


class NeighbourState(NamedTuple):
    """The model, and of each query [K] its features, label, radius and neighbourhood.

    Attributes:
        params: of the features.
        features: float[K, D].
        labels: int[K].
        radius: squared distance within which an example is a neighbour.
        held: how many neighbours there are.
        matching: how many of them have the query's label.
    """

    params: Params
    features: jax.Array
    labels: jax.Array
    radius: jax.Array
    held: jax.Array
    matching: jax.Array


def knn_attribution(
    feature_fn: Callable[[Params, Batch], jax.Array],
    label_fn: Callable[[Batch], jax.Array] = lambda batch: batch["y"],
    *,
    num_classes: int,
    num_neighbours: int = 10,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> Attributor:
    """Shapley value of every training example for a neighbourhood's vote on every query.

    The game: the share of a coalition's neighbours of the query that have its label, and 1/C
    for a coalition without neighbours. The neighbourhood is a ball around the query, half way
    between its k-th and its (k+1)-th nearest training example. Beyond it values are 0; within,
    with c other neighbours of which a share r matches, and m = 1 for an example that matches,

    `((m − 1/C) + (m − r) (H_{c+1} − 1)) / (c + 1)`, H the harmonic numbers.

    Sign: positive = the example is a neighbour and speaks for the query's label.

    Cost: one forward pass per training example, and two in `prepare`.

    Args:
        feature_fn: `(params, batch) -> float[B, ...]`; trailing axes are flattened.
        label_fn: `batch -> int[B]`.
        num_classes: C.
        num_neighbours: k, below the number of training examples.
        metric: `"cosine"` or `"euclidean"`, of the features.

    Returns:
        An `Attributor` whose `prepare` needs the training set; single queries only. Its
        diagnostics, float[K] each: `neighbours`, more than k where distances tie, and `matching`,
        the share of them with the query's label. A query's scores sum to `matching` − 1/C.

    Raises:
        InputError: for settings that mean nothing, groups, no training set to pass over, or not
            more than k training examples.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> train = {"x": jnp.array([[0.0], [1.0], [5.0]]), "y": jnp.array([0, 1, 0])}
        >>> query = {"x": jnp.array([[0.2]]), "y": jnp.array([0])}
        >>> method = knn_attribution(lambda params, batch: batch["x"], num_classes=2,
        ...     num_neighbours=2, metric="euclidean")
        >>> state = method.prepare((), query, Stream(as_source(train), 3))
        >>> method.score(state, train).tolist()
        [[0.5, -0.5, 0.0]]

    Reference: Wang, Zhu, Wang, Jia and Mittal, Threshold KNN-Shapley, NeurIPS 2023.
    """
    if metric not in ("cosine", "euclidean"):
        raise InputError(f"metric must be 'cosine' or 'euclidean', not {metric!r}")
    if num_classes < 2 or num_neighbours < 1:
        raise InputError(
            f"num_classes is {num_classes} and num_neighbours {num_neighbours}: at least 2 and 1"
        )

    def features(params: Params, batch: Batch) -> jax.Array:
        found = feature_fn(params, batch)
        found = found.reshape(found.shape[0], -1)
        found = found.astype(jnp.promote_types(found.dtype, jnp.float32))
        if metric == "cosine":
            norms = jnp.linalg.norm(found, axis=1, keepdims=True)
            found = found / jnp.where(norms > 0, norms, 1)
        return found

    def distances(params: Params, of_queries: jax.Array, batch: Batch) -> jax.Array:
        found = features(params, batch)
        squares = lambda a: jnp.sum(a**2, axis=1)
        dots = jnp.matmul(of_queries, found.T, precision="highest")
        return jnp.maximum(squares(of_queries)[:, None] + squares(found)[None] - 2 * dots, 0)

    @jax.jit
    def nearest(
        params: Params, of_queries: jax.Array, so_far: jax.Array, batch: Batch, mask: jax.Array
    ) -> jax.Array:
        found = jnp.where(mask[None], distances(params, of_queries, batch), jnp.inf)
        both = jnp.concatenate([so_far, found.astype(so_far.dtype)], axis=1)
        return jnp.sort(both, axis=1)[:, : so_far.shape[1]]

    @jax.jit
    def count(state: NeighbourState, batch: Batch, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        near, match = neighbours(state, batch)
        near = near & mask[None]
        return jnp.sum(near, axis=1), jnp.sum(near & match, axis=1)

    def neighbours(state: NeighbourState, batch: Batch) -> tuple[jax.Array, jax.Array]:
        near = distances(state.params, state.features, batch) <= state.radius[:, None]
        return near, state.labels[:, None] == jnp.asarray(label_fn(batch))[None]

    def prepare(params: Params, queries: PyTree, train: Any = None) -> NeighbourState:
        if isinstance(queries, QueryGroups):
            if queries.weights.shape[1] != 1:
                raise InputError("knn_attribution takes single queries, not groups")
            queries = jax.tree.map(lambda a: jnp.asarray(a)[:, 0], queries.examples)
        found = features(params, queries)
        labels = jnp.asarray(label_fn(queries))
        blank = jnp.zeros(found.shape[0], found.dtype)
        state = NeighbourState(params, found, labels, blank, blank, blank)
        if only_shapes(train, params, queries):
            return state
        rows = training_rows(train, "knn_attribution")
        if rows.count <= num_neighbours:
            raise InputError(
                f"num_neighbours is {num_neighbours}, but there are only {rows.count} training "
                "examples: more are needed"
            )
        closest = jnp.full((found.shape[0], num_neighbours + 1), jnp.inf, found.dtype)
        for batch, mask in rows:
            closest = nearest(params, found, closest, batch, mask)
        # not at the distance of an example, which rounds one way here and another there
        state = state._replace(radius=(closest[:, -2] + closest[:, -1]) / 2)
        held, matching = rows.total(lambda batch, mask: count(state, batch, mask))
        as_features = lambda a: a.astype(found.dtype)
        return state._replace(held=as_features(held), matching=as_features(matching))

    def score(state: NeighbourState, batch: PyTree) -> jax.Array:
        near, match = neighbours(state, batch)
        m = match.astype(state.held.dtype)
        others = jnp.maximum(state.held - 1, 0)[:, None]
        share = (state.matching[:, None] - m) / jnp.maximum(others, 1)
        harmonic = jax.scipy.special.digamma(others + 2) + jnp.euler_gamma
        value = ((m - 1 / num_classes) + (m - share) * (harmonic - 1)) / (others + 1)
        return jnp.where(near, value, 0.0)

    def diagnose(state: NeighbourState, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        share = state.matching / jnp.maximum(state.held, 1)
        return {"neighbours": state.held, "matching": share}

    name = f"knn_attribution({num_neighbours}, {num_classes} classes, {metric})"
    return Attributor(prepare, score, diagnose, None, lambda k: 1.0, name)
