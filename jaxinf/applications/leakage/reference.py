"""Influence relative to reference queries: what forward passes alone can do about loud examples.

Gradients of a network share most of their direction, and those of badly fitted examples are the
largest: both win for every query. The gradients of some reference queries hold what is shared;
taking it out of each query's direction, and dividing each training example's scores by what it
scores for the references, leaves what the example has in common with this query alone. The
training side stays forward-only: no gradient of a training example, and no norm of one, is taken.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import check_differentiable, check_examples, check_positive
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.derivatives import Derivatives, Scorer
from jaxinf.influence.directions import map_queries, query_gradient
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


def reference_influence(
    loss_fn: PerExampleLoss,
    reference: Batch,
    *,
    ridge: float = 0.1,
    scorer: Scorer = "auto",
    query_chunk: int | None = 4,
) -> Attributor:
    """Whitened, normalised first-order influence, from forward passes over the training set.

    With `u` the unit gradients of the K queries and `U` [R, P] those of the references,

    `w = u − u Uᵀ (U Uᵀ + ridge I)⁻¹ U`,
    `score(z) = ⟨∇ℓ(z), w⟩ / (√⟨u, w⟩ · mean_r |⟨∇ℓ(z), w_r⟩|)`,

    `w_r` the references' own directions so treated. `w` is the query's gradient times the
    inverse of the references' second moments (plus ridge), up to a factor; the denominator
    stands for the norms of both gradients in that metric, so that scores compare across queries
    as cosines do. (A mean of absolute scores, not of squares: a reference that happens to be akin
    to an example would rule these.) Their `gap` in `leak_statistics` decides best.

    Sign: positive = training on the example lowers the query's loss (a proponent). Negative and
    large: the same input under another label.

    Cost: that of `forward_inf_jvp` for K + R queries, (1 + 2 (K + R)) forward passes per training
    example with `scorer="jvp"`; 2 to 3 and the contractions by the others, for the same numbers.
    Memory: K + R copies of the parameters.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        reference: R examples built like the queries and drawn as clean ones are; some 100 serve.
            Neither the queries nor those that calibrate: what enters the directions does not
            compare with what does not.
        ridge: relative to the unit gradients' second moments; larger whitens less.
        scorer: as in `jaxinf.influence.derivatives`; `"jvp"` is forward-only.
        query_chunk: for forward mode, how many directions share one primal pass.

    Returns:
        An `Attributor`, with diagnostics `loss_before` and `kept`, the share of each query's unit
        gradient that is not in the references' span (0 to 1).

    Raises:
        InputError: an empty reference, a ridge that is not positive, or an unknown scorer.

    Example:
        >>> import numpy as np
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> x = np.array([[1, 0, 5], [0, 1, 5], [1, 1, 50]], np.float32)
        >>> batch = {"x": x, "y": np.ones(3, np.float32)}
        >>> reference = {"x": np.array([[0, 0, 1.0]], np.float32), "y": np.ones(1, np.float32)}
        >>> method = reference_influence(loss, reference)
        >>> state = method.prepare(jnp.zeros(3), batch)
        >>> method.score(state, batch).argmax(axis=1).tolist()
        [0, 1, 0]
    """
    check_examples(reference, "reference")
    check_positive(ridge, "ridge")
    slopes = Derivatives(scorer, query_chunk)
    loss = scoring_loss(loss_fn)

    @jax.jit
    def gradient(loss: Partial, params: Params, group: QueryGroups) -> tuple[Params, jax.Array]:
        found = query_gradient(loss, params, group)
        return found.displacement, found.loss_before

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        of_one = lambda group: gradient(loss, params, group)
        asked, losses = map_queries(of_one, params, as_groups(queries))
        others, _ = map_queries(of_one, params, as_groups(reference))
        directions, kept = _whitened(asked, others, ridge)
        return DirectionState(loss, params, directions, {"loss_before": losses, "kept": kept})

    def score(state: DirectionState, batch: Batch) -> jax.Array:
        found = slopes.score(state, batch)
        count = state.diagnostics["kept"].shape[0]
        size = jnp.mean(jnp.abs(found[count:]), axis=0, keepdims=True)
        return jnp.where(size > 0, found[:count] / jnp.where(size > 0, size, 1), 0.0)

    size = jax.tree.leaves(reference)[0].shape[0]
    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        lambda k: slopes.cost(k + size),
        f"reference_influence({slopes.name})",
        plan=slopes.plan_score,
    )


@jax.jit
def _whitened(asked: Params, others: Params, ridge: jax.Array) -> tuple[Params, jax.Array]:
    """Directions of the queries and, behind them, of the references; the share that is kept."""
    unit, rows = _unit(asked), _unit(others)
    among = _products(rows, rows)
    damped = among + ridge * jnp.eye(among.shape[0], dtype=among.dtype)
    shares = jnp.linalg.solve(damped, _products(rows, unit)).T
    of_queries = jax.tree.map(lambda u, r: u - jnp.tensordot(shares, r, 1), unit, rows)
    kept = _norms(of_queries)
    of_queries = _scaled(of_queries, jnp.sqrt(_dots(unit, of_queries)))
    mixing = ridge * jnp.linalg.inv(damped)
    of_references = jax.tree.map(lambda r: jnp.tensordot(mixing, r, 1), rows)
    both = jax.tree.map(lambda q, r: jnp.concatenate([q, r]), of_queries, of_references)
    return both, kept


def _unit(tree: Params) -> Params:
    return _scaled(tree, _norms(tree))


def _scaled(tree: Params, sizes: jax.Array) -> Params:
    """Each row divided by its size; rows of size 0 stay."""
    scale = 1 / jnp.where(sizes > 0, sizes, 1)
    spread = lambda a: scale.reshape(-1, *[1] * (a.ndim - 1))
    return jax.tree.map(lambda a: a * spread(a), tree)


def _norms(tree: Params) -> jax.Array:
    return jnp.sqrt(_dots(tree, tree))


def _dots(a: Params, b: Params) -> jax.Array:
    """Inner product of every row with the same row of the other."""
    parts = [
        jnp.sum((x * y).reshape(x.shape[0], -1), axis=1)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return sum(parts[1:], parts[0])


def _products(a: Params, b: Params) -> jax.Array:
    """Inner products of every row of one with every row of the other."""
    flat = lambda leaf: leaf.reshape(leaf.shape[0], -1)
    parts = [
        jnp.matmul(flat(x), flat(y).T, precision="highest")
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return sum(parts[1:], parts[0])
