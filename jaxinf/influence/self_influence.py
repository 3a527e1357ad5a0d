"""Self-influence: what each training example does for its own loss.

High where the model had to learn an example by heart: mislabelled, atypical or memorised ones. As
a normaliser it takes out how loud an example is whatever the query, in the method's own metric.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.engine import Stream, as_source
from jaxinf.engine.sources import IterableSource
from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.typing import Params, PyTree


def self_influence(
    attributor: Attributor, params: Params, train: Any, *, batch_size: int = 64
) -> Float[np.ndarray, " N"]:
    """Each training example's score on itself as a query.

    Sign: as the attributor's; the more positive, the more the example's fit rests on itself.

    Cost: one scoring pass where the attributor knows `self_score` (grad_dot; trak and
    logra made `with_self_score`);
    otherwise every example is a query in its turn, N preparations in N / batch_size calls.

    Args:
        attributor: any.
        params: the model.
        train: N examples, as in `attribute`, but no iterable of batches.
        batch_size: examples at a time.

    Returns:
        float[N].

    Raises:
        InputError: for an iterable of batches, or a batch size below 1.

    Example:
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> train = {"x": np.eye(2, dtype=np.float32), "y": np.array([1.0, -2.0], np.float32)}
        >>> self_influence(grad_dot(loss), jnp.zeros(2), train).tolist()
        [4.0, 16.0]
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    source = as_source(train)
    if isinstance(source, IterableSource):
        raise InputError("self_influence reads examples again: an iterable of batches cannot be")
    stream = Stream(source, min(batch_size, len(source)))
    found = []
    if attributor.self_score is not None:
        one = source.read(0, 1)
        state = attributor.prepare(params, jax.tree.map(jnp.asarray, one), stream)
        of_batch = jax.jit(attributor.self_score)
        found = [np.asarray(of_batch(state, each.batch))[: int(each.mask.sum())] for each in stream]
        return np.concatenate(found)
    score = jax.jit(attributor.score)
    for each in stream:
        batch = jax.tree.map(jnp.asarray, each.batch)
        scores = score(attributor.prepare(params, batch, stream), batch)
        found.append(np.asarray(jnp.diagonal(scores))[: int(each.mask.sum())])
    return np.concatenate(found)


def normalise_by_self_influence(attributor: Attributor, *, floor: float = 1e-12) -> Attributor:
    """Divide each example's scores by the root of its self-influence.

    On `grad_dot` it is `normalise_by_gradient_norm`; on curvature methods the scores become
    cosines in the metric of the inverse curvature, but for the query's own factor.

    Sign: as the inner attributor's.

    Cost: about twice the inner one's, less what XLA shares.

    Args:
        attributor: one that knows `self_score`: `grad_dot`; `trak` and `logra` made
            `with_self_score`. For others, divide
            `Attribution.scores` by the root of `self_influence`.
        floor: added to the self-influence, which is taken as 0 where it is negative.

    Returns:
        An `Attributor` with the inner one's diagnostics.

    Raises:
        InputError: for an attributor without `self_score`, or a floor that is not positive.

    Example:
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = normalise_by_self_influence(grad_dot(loss))
        >>> state = method.prepare(jnp.zeros(2), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[ 2.   -1.41]
         [-2.    2.83]]

    Reference: Barshan, Brunet and Dziugaite, RelatIF: Identifying Explanatory Training Samples via
    Relative Influence, AISTATS 2020.
    """
    self_score = attributor.self_score
    if self_score is None:
        raise InputError(
            f"{attributor.name} has no self_score: divide its scores by the root of self_influence"
        )
    if not floor > 0:
        raise InputError(f"floor must be positive, not {floor}")

    def score(state: PyTree, batch: PyTree) -> jax.Array:
        scale = jnp.sqrt(jnp.maximum(self_score(state, batch), 0) + floor)
        return attributor.score(state, batch) / scale[None]

    cost = attributor.forward_passes
    return attributor._replace(
        score=score,
        forward_passes=cost and (lambda k: 2 * cost(k)),
        name=f"{attributor.name} / self-influence",
        self_score=None,
    )
