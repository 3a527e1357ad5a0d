"""The methods of `benchmarks.facts`: raw scores first, then what they are divided by.

Dividing by an example's loss or gradient norm, and centring over the queries, is done on the
raw scores here, since several rows of the table share them; `normalise_by_loss` and
`normalise_by_gradient_norm` give the same numbers, one method at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.facts_model import Subject
from jaxinf import attribute
from jaxinf.applications.language import causal_lm_loss, token_scores
from jaxinf.applications.language.losses import token_nats
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.influence import (
    Attributor,
    bm25,
    forward_inf,
    grad_dot,
    influence_function,
    representation_similarity,
    trak,
)
from jaxinf.influence.derivatives import Scorer
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import estimated_gradient_norms, gradient_norms

BATCH = 512
CHUNK = 128


class Raw(NamedTuple):
    """A method before normalisation.

    Attributes:
        kind: `"lexical"`, `"representation"`, `"gradient"` (takes gradients of training
            examples) or `"forward"` (forward passes of training examples alone).
        attributor: what scores.
        params: what it is called with.
        queries: the same.
        train: the same.
    """

    kind: str
    attributor: Attributor
    params: Any
    queries: Any
    train: Any


def lexical(subject: Subject) -> dict[str, Raw]:
    """BM25 of the question, and of the question with its answer."""
    train, prompts, whole = subject.words
    return {
        "BM25, question and answer": Raw("lexical", bm25(), (), whole, train),
        "BM25, question alone": Raw("lexical", bm25(), (), prompts, train),
    }


def representations(subject: Subject) -> dict[str, Raw]:
    """Cosine of hidden states of the last layer, averaged over the text or at its end."""
    module = subject.module

    def mean(params: Any, batch: Any) -> jax.Array:
        hidden = module.apply({"params": params}, batch["tokens"], method="features")
        return jnp.sum(hidden * batch["mask"][:, :, None], axis=1)

    def last(params: Any, batch: Any) -> jax.Array:
        hidden = module.apply({"params": params}, batch["tokens"], method="features")
        ends = jnp.sum(batch["mask"], axis=1)
        return jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]

    common = (subject.params, subject.asked, subject.train)
    return {
        "hidden states, mean": Raw("representation", representation_similarity(mean), *common),
        "hidden states, last": Raw("representation", representation_similarity(last), *common),
    }


def trak_method(subject: Subject, dim: int, damping: float, seed: int, stages: bool) -> Raw:
    """TRAK at the last model, or over the stages of training."""
    count = len(jax.tree.leaves(subject.stages)[0]) if stages else None
    method = trak(
        subject.loss_fn, projection_dim=dim, key=jax.random.key(seed), num_checkpoints=count,
        damping=damping, damping_unit="mean_eigenvalue", gradient_chunk_size=128,
    )  # fmt: skip
    params = subject.stages if stages else subject.params
    return Raw("gradient", method, params, subject.queries, subject.train)


def dot(subject: Subject, train: Any, scorer: Scorer = "gradients", queries: Any = None) -> Raw:
    """Products of gradients; by forward mode they are one step's first order, to round-off."""
    method = grad_dot(subject.loss_fn, scorer=scorer, gradient_chunk=CHUNK)
    asked = subject.queries if queries is None else queries
    return Raw("forward", method, subject.params, asked, train)


def step(subject: Subject, train: Any, optimizer: Any, steps: int) -> Raw:
    """Steps on the query at their finite size."""
    method = forward_inf(subject.loss_fn, optimizer=optimizer, steps=steps)
    return Raw("forward", method, subject.params, subject.queries, train)


def curved(
    subject: Subject, train: Any, damping: float, measure: str = "loss",
    scorer: Scorer = "gradients", queries: Any = None,
) -> Raw:  # fmt: skip
    """The query's gradient over the EK-FAC curvature of the training set."""
    method = _curved(subject, damping, measure, scorer)
    asked = subject.queries if queries is None else queries
    return Raw("forward", method, subject.params, asked, train)


def _curved(subject: Subject, damping: float, measure: Any, scorer: Scorer) -> Attributor:
    return influence_function(
        subject.loss_fn, solver="ekfac", curvature="fisher", damping=damping,
        damping_unit="mean_eigenvalue", measure=measure, scorer=scorer, gradient_chunk=CHUNK,
    )  # fmt: skip


def score(raw: Raw) -> np.ndarray:
    """float[K, N]."""
    found = attribute(
        raw.attributor, raw.params, raw.queries, raw.train, batch_size=BATCH, progress=False,
        diagnostics=False,
    )  # fmt: skip
    assert found.scores is not None
    return np.asarray(found.scores, np.float64)


class Divisors(NamedTuple):
    """What scores are divided by, float[N] each: loss, gradient norm, and its estimate."""

    loss: np.ndarray
    norm: np.ndarray
    estimate: np.ndarray


def divisors(subject: Subject, train: Any, probes: int = 32) -> Divisors:
    """Of every training example; the estimate takes 2 forward passes per probe, and no gradient."""
    loss = scoring_loss(subject.loss_fn)
    of = jax.jit(
        lambda batch: (
            loss(subject.params, batch),
            gradient_norms(loss, subject.params, batch, CHUNK),
            estimated_gradient_norms(loss, subject.params, batch, jax.random.key(1), probes),
        )
    )
    return Divisors(*_by_blocks(of, train))


def _by_blocks(fn: Callable[[Any], Any], train: Any) -> list[np.ndarray]:
    count = len(train["tokens"])
    rows = np.arange(-(-count // BATCH) * BATCH) % count
    parts = [
        fn({name: a[rows[i : i + BATCH]] for name, a in train.items()})
        for i in range(0, len(rows), BATCH)
    ]
    columns = zip(*parts, strict=True)
    return [np.concatenate([np.asarray(p) for p in column])[:count] for column in columns]


def token_cosines(
    subject: Subject, queries: Any, damping: float | None, whole: bool, probes: int = 32
) -> dict[str, np.ndarray]:
    """Each sentence's best token, best three and mean of all: float[K, N] each.

    A token's score is what predicting it shares with the query's direction, over an estimate of
    its own gradient's norm: forward passes alone, and no knowledge of where the object stands.
    """
    loss_fn = causal_lm_loss(subject.module, reduction="sum")
    if damping is None:
        method = grad_dot(loss_fn, scorer="jvp", query_chunk=16)
    else:
        method = influence_function(
            loss_fn, solver="ekfac", curvature="fisher", damping=damping,
            damping_unit="mean_eigenvalue", scorer="jvp",
        )  # fmt: skip
    nats = token_nats(subject.module)
    train = subject.train
    if whole:
        queries = queries | {"weights": _unit_weights(nats, subject.params, queries)}
        train = train | {"weights": np.ones(train["mask"].shape, np.float32)}
    state = method.prepare(subject.params, queries, Stream(ArraySource(train), BATCH))

    @jax.jit
    def of(state: Any, batch: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        def probe(key: jax.Array) -> jax.Array:
            leaves, structure = jax.tree.flatten(state.params)
            keys = jax.random.split(key, len(leaves))
            draws = [jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
            tangent = jax.tree.unflatten(structure, draws)
            return jax.jvp(lambda at: nats(at, batch), (state.params,), (tangent,))[1]

        squares = jax.lax.map(lambda k: probe(k) ** 2, jax.random.split(jax.random.key(2), probes))
        norms = jnp.sqrt(jnp.mean(squares, axis=0))
        scores = token_scores(method, loss_fn, state, batch)
        mask = batch["mask"].astype(scores.dtype)
        scores = scores / (norms + 1e-6)[None] * mask[None]
        best = jax.lax.top_k(scores, 3)[0]
        mean = scores.sum(axis=2) / mask.sum(axis=1)[None]
        return best[:, :, 0].T, best.sum(axis=2).T, mean.T

    found = _by_blocks(lambda batch: of(state, batch), train)
    return {
        name: np.asarray(part.T, np.float64)
        for name, part in zip(("best token", "best three", "mean token"), found, strict=True)
    }


def _unit_weights(nats: Any, params: Any, queries: Any) -> np.ndarray:
    """Weights that make every token's gradient of one length, float32[K, T]."""

    @jax.jit
    def of(example: Any) -> jax.Array:
        alone = jax.tree.map(lambda a: a[None], example)
        gradients = jax.jacrev(lambda at: nats(at, alone)[0])(params)
        squares = [jnp.sum(g.reshape(len(g), -1) ** 2, axis=1) for g in jax.tree.leaves(gradients)]
        total = sum(squares)
        return jnp.where(total > 0, 1 / jnp.sqrt(jnp.where(total > 0, total, 1)), 0)

    count = len(queries["tokens"])
    each = [of({name: a[i] for name, a in queries.items()}) for i in range(count)]
    return np.stack([np.asarray(one) for one in each])
