"""What `benchmarks.facts` compiles: a few programs, each run by every seed and for many rows.

One loss serves all: the sum over a text's tokens, each times its weight. With weights `1 / tokens`
it is the mean loss of a sentence or an answer. Parameters and directions are arguments, and shapes
are the same for all seeds.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

from benchmarks.facts_model import Subject
from jaxinf.applications.language import causal_lm_loss, mean_hidden_state
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.influence import (
    Attributor,
    bm25,
    forward_inf,
    influence_function,
    representation_similarity,
    trak,
)
from jaxinf.influence.inverse_hessian import ekfac
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import contracted_gradients, example_gradient, finite_changes

BATCH = 448  # twelve of them
CHUNK = 64  # gradients held at once
PROBES = 40  # random directions that norms are estimated by
AT_ONCE = 10  # directions that are preconditioned together
DAMPING = 0.1

Arrays = dict[str, np.ndarray]


def mean(batch: Arrays) -> Arrays:
    """Weights that make the sum over tokens their mean."""
    counts = batch["mask"].sum(axis=1, keepdims=True)
    return batch | {"weights": (batch["mask"] / counts).astype(np.float32)}


def ones(batch: Arrays) -> Arrays:
    """Weights of 1."""
    return batch | {"weights": np.ones(batch["mask"].shape, np.float32)}


def joined(*batches: Arrays) -> Arrays:
    """One batch of several."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


# small programs are compiled leaf by leaf where they are not one
@jax.jit
def stacked(*directions: Any) -> Any:
    """One pytree of several, along the leading axis."""
    return jax.tree.map(lambda *a: jnp.concatenate(a), *directions)


def gradients(subject: Subject, queries: Arrays) -> Any:
    """The gradient of every query's loss, like the parameters with a leading axis K."""
    return _gradients(scoring_loss(_loss(subject.module)), subject.params, queries)


def curved(subject: Subject, queries: Arrays, train: Arrays, damping: float = DAMPING) -> Any:
    """Every query's gradient over the EK-FAC curvature of the training set; scale left open."""
    method = _curved(subject.module, damping)
    state = method.prepare(subject.params, queries, Stream(ArraySource(train), BATCH))
    return _negated(state.directions)


class Slopes(NamedTuple):
    """From gradients of training examples: products [K, N], their norms [N], and losses [N]."""

    products: np.ndarray
    norms: np.ndarray
    losses: np.ndarray


def slopes(subject: Subject, directions: Any, train: Arrays) -> Slopes:
    """Products of the directions with every training example's gradient."""
    of = partial(_slopes, scoring_loss(_loss(subject.module)), subject.params, directions)
    products, norms, losses = map(_joined_blocks, zip(*map(of, blocks(train)), strict=True))
    count = len(train["tokens"])
    return Slopes(products.T[:, :count], norms[:count], losses[:count])


def shares(subject: Subject, directions: Any, train: Arrays) -> np.ndarray:
    """Products with every token's gradient, float64[K, N, T].

    The forward derivatives that `jaxinf.applications.language.token_scores` takes, to round-off;
    many directions are cheaper by one gradient of every token.
    """
    rows, places = np.nonzero(train["mask"])
    each = {name: a[rows] for name, a in train.items()}
    each["weights"] = np.zeros_like(train["weights"][rows])
    each["weights"][np.arange(len(rows)), places] = train["weights"][rows, places]
    found = np.zeros((jax.tree.leaves(directions)[0].shape[0], *train["mask"].shape))
    found[:, rows, places] = slopes(subject, directions, each).products
    return found


def probes(subject: Subject) -> Any:
    """Random directions, which norms are estimated by."""
    return _normal(subject.params)


def finite(subject: Subject, optimizer: str, train: Arrays) -> np.ndarray:
    """How much one step on every query lowers every training example's loss, float64[K, N]."""
    method = _stepping(subject.module, optimizer)
    state = method.prepare(subject.params, mean(subject.queries))
    found = [np.asarray(_changes(state.loss_fn, state.models, batch)) for batch in blocks(train)]
    return -np.concatenate(found, axis=1)[:, : len(train["tokens"])].astype(np.float64)


def blocks(train: Arrays) -> Iterator[Arrays]:
    """Batches of one size, the last one filled up with rows from the start."""
    count = len(train["tokens"])
    size = min(BATCH, count)
    rows = np.arange(-(-count // size) * size) % count
    for start in range(0, len(rows), size):
        yield {name: a[rows[start : start + size]] for name, a in train.items()}


@jax.jit
def _normal(params: Any) -> Any:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    draws = [jax.random.normal(k, (PROBES, *p.shape)) for k, p in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


@jax.jit
def _negated(directions: Any) -> Any:
    return jax.tree.map(jnp.negative, directions)


def _joined_blocks(parts: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts]).astype(np.float64)


@jax.jit
def _gradients(loss: Partial, params: Any, queries: Any) -> Any:
    return lax.map(partial(example_gradient, loss, params), queries)


@jax.jit
def _slopes(loss: Partial, params: Any, directions: Any, batch: Any) -> tuple[jax.Array, ...]:
    products, norms = contracted_gradients(loss, params, directions, batch, CHUNK)
    return products.T, norms, loss(params, batch)


@jax.jit
def _changes(loss: Partial, models: Any, batch: Any) -> jax.Array:
    return finite_changes(loss, models, batch)


@cache
def _loss(module: Any) -> Partial:
    return causal_lm_loss(module, reduction="sum")


@cache
def _curved(module: Any, damping: float) -> Attributor:
    return influence_function(
        _loss(module), solver=ekfac(with_residual=False), curvature="fisher", damping=damping,
        damping_unit="mean_eigenvalue", scorer="jvp", query_chunk=AT_ONCE,
    )  # fmt: skip


@cache
def _stepping(module: Any, optimizer: str) -> Attributor:
    chosen = {"Adam": optax.adam(1e-4), "SGD": optax.sgd(0.1)}[optimizer]
    return forward_inf(_loss(module), optimizer=chosen)


@cache
def trak_method(module: Any, projection: int) -> Attributor:
    """TRAK; the models differ from seed to seed, the projection need not."""
    return trak(
        causal_lm_loss(module), projection_dim=projection, key=jax.random.key(0), damping=0.1,
        damping_unit="mean_eigenvalue", gradient_chunk_size=CHUNK,
    )  # fmt: skip


@cache
def words_alone() -> Attributor:
    """BM25."""
    return bm25()


@cache
def mean_hidden(module: Any) -> Attributor:
    """Cosine of hidden states averaged over the text."""
    return representation_similarity(mean_hidden_state(module))


@cache
def whitened_hidden(module: Any) -> Attributor:
    """The same, of states less their mean and over the root of their covariance."""
    return representation_similarity(mean_hidden_state(module), metric="whitened")


@cache
def last_hidden(module: Any) -> Attributor:
    """Cosine of hidden states at the text's end."""

    def last(params: Any, batch: Any) -> jax.Array:
        hidden = module.apply({"params": params}, batch["tokens"], method="features")
        ends = jnp.sum(batch["mask"], axis=1)
        return jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]

    return representation_similarity(last)
