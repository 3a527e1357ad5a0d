"""The methods of `benchmarks.facts`: every row's scores, one after the other.

Rows that differ in what they are divided by share their raw scores; `normalise_by_loss` and
`normalise_by_gradient_norm` give the same numbers, one method at a time. Attributors are made once
per model's shape and take the parameters as arguments, so that all seeds run what was compiled for
the first; queries by their answers and by the whole question go together for the same reason.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks.facts_model import Subject
from jaxinf import attribute
from jaxinf.applications.language import (
    causal_lm_loss,
    mean_hidden_state,
    sum_of_z_scores,
    unit_weights,
)
from jaxinf.applications.language.by_token import aggregate_tokens, token_cosines
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
from jaxinf.influence.inverse_hessian import ekfac
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import estimated_gradient_norms, gradient_norms

BATCH = 448  # twelve of them
CHUNK = 64  # gradients held at once
QUERY_CHUNK = 10  # divides the queries, so that no odd rest is compiled for
PROBES = 32
DAMPING = 0.1

BM25 = "BM25, question and answer"
BEST_OF_ANSWER = "by token, preconditioned: best token"
MEAN_OF_WHOLE = "by token, preconditioned, whole question: mean token"
BOTH = "by token, answer and whole question"

KINDS = {
    BM25: "lexical",
    "BM25, question alone": "lexical",
    "hidden states, mean": "representation",
    "hidden states, last": "representation",
    "grad-dot": "gradient",
    "grad-cos": "gradient",
    "slope / norm": "forward",
    "grad-cos, object's loss": "gradient",
    "slope / norm, object's loss": "forward",
    "preconditioned": "forward",
    "preconditioned, whole question": "forward",
    BEST_OF_ANSWER: "forward",
    "by token, preconditioned: mean token": "forward",
    "by token, preconditioned, whole question: best token": "forward",
    MEAN_OF_WHOLE: "forward",
    BOTH: "forward",
    "TRAK": "gradient",
    "preconditioned, object's loss": "forward",
    "one Adam step / loss": "forward",
    "one SGD step / loss": "forward",
}

Rows = Iterator[tuple[str, np.ndarray]]


def scores(subject: Subject, projection: int) -> Rows:
    """Every row's name and scores, float64[K, N], in the order of `KINDS`."""
    yield from lexical(subject)
    yield from representations(subject)
    whole, objects = subject.train, subject.objects
    over, over_objects = divisors(subject, whole), divisors(subject, objects)
    products = score(subject, _dot(subject.module), whole)
    yield "grad-dot", products
    yield "grad-cos", products / over.norm
    # by forward mode it is the same product, to round-off
    yield "slope / norm", products / over.estimate
    products = score(subject, _dot(subject.module), objects)
    yield "grad-cos, object's loss", products / over_objects.norm
    yield "slope / norm, object's loss", products / over_objects.estimate
    count = len(subject.relevant)
    both = score(subject, _curved(subject.module), whole, _joined(subject.queries, subject.asked))
    yield "preconditioned", both[:count] / over.estimate
    yield "preconditioned, whole question", both[count:] / over.estimate
    yield from by_tokens(subject, DAMPING)
    yield "TRAK", score(subject, _trak(subject.module, projection), whole)
    curved = score(subject, _curved(subject.module), objects)
    yield "preconditioned, object's loss", curved / over_objects.estimate
    for name, method in (("Adam", _adam(subject.module)), ("SGD", _sgd(subject.module))):
        yield f"one {name} step / loss", score(subject, method, whole) / (over.loss + 1e-3)


def tried(subject: Subject, final: dict[str, np.ndarray]) -> Rows:
    """Variants that the development part chooses among, beside the rows of the table."""
    best, mean = final[BEST_OF_ANSWER], final[MEAN_OF_WHOLE]
    for weight in (0.5, 2.0):
        yield f"{BOTH}, weight {weight:g}", sum_of_z_scores([best, mean], weights=[1, weight])
    hidden = final["hidden states, mean"]
    for weight in (0.5, 1.0):
        fused = sum_of_z_scores([final[BOTH], hidden], weights=[0.5, weight])
        yield f"{BOTH}, and hidden states {weight:g}", fused
    for damping in (1.0, 0.01):
        for name, found in by_tokens(subject, damping):
            yield f"{name}, damping {damping:g}", found


def lexical(subject: Subject) -> Rows:
    """BM25 of the question with its answer, and of the question."""
    train, prompts, whole = subject.words
    for name, asked in ((BM25, whole), ("BM25, question alone", prompts)):
        yield name, score(subject, _bm25(), train, asked, params=())


def representations(subject: Subject) -> Rows:
    """Cosine of hidden states of the last layer, averaged over the text or at its end."""
    for name, method in (("mean", _mean_hidden), ("last", _last_hidden)):
        found = score(subject, method(subject.module), subject.train, subject.asked)
        yield f"hidden states, {name}", found


def by_tokens(subject: Subject, damping: float) -> Rows:
    """Each sentence's best token and the mean of all, by the answer and by the whole question."""
    method, loss_fn = _by_token(subject.module, damping)
    scorer = _by_token(subject.module, DAMPING)[0]  # one program, whatever the damping
    weights = unit_weights(subject.module, subject.params, subject.asked)
    ones = lambda batch: batch | {"weights": np.ones(batch["mask"].shape, np.float32)}
    asked = subject.asked | {"weights": weights}
    queries, train = _joined(ones(subject.queries), asked), ones(subject.train)
    state = method.prepare(subject.params, queries, Stream(ArraySource(train), BATCH))
    of = lambda batch: _tokens(scorer, loss_fn, state, batch)
    best, mean = (np.asarray(part.T, np.float64) for part in _by_blocks(of, train))
    count = len(subject.relevant)
    yield BEST_OF_ANSWER, best[:count]
    yield "by token, preconditioned: mean token", mean[:count]
    yield "by token, preconditioned, whole question: best token", best[count:]
    yield MEAN_OF_WHOLE, mean[count:]
    yield BOTH, sum_of_z_scores([best[:count], mean[count:]])


def score(
    subject: Subject, method: Attributor, train: Any, queries: Any = None, params: Any = None
) -> np.ndarray:
    """float64[K, N]; the queries are the answers, unless others are given."""
    found = attribute(
        method, subject.params if params is None else params,
        subject.queries if queries is None else queries, train,
        batch_size=BATCH, progress=False, diagnostics=False,
    )  # fmt: skip
    assert found.scores is not None
    return np.asarray(found.scores, np.float64)


class Divisors(NamedTuple):
    """What scores are divided by, float[N] each: loss, gradient norm, and its estimate.

    The estimate takes 2 forward passes per probe, and no gradient.
    """

    loss: np.ndarray
    norm: np.ndarray
    estimate: np.ndarray


def divisors(subject: Subject, train: Any) -> Divisors:
    """Of every training example."""
    return Divisors(*_by_blocks(partial(_divisors, subject.module, subject.params), train))


@partial(jax.jit, static_argnums=0)
def _divisors(module: Any, params: Any, batch: Any) -> tuple[jax.Array, ...]:
    loss = scoring_loss(causal_lm_loss(module))
    return (
        loss(params, batch),
        gradient_norms(loss, params, batch, CHUNK),
        estimated_gradient_norms(loss, params, batch, jax.random.key(1), PROBES),
    )


@partial(jax.jit, static_argnums=0)
def _tokens(
    method: Attributor, loss_fn: Partial, state: Any, batch: Any
) -> tuple[jax.Array, jax.Array]:
    key = jax.random.key(2)
    cosines = token_cosines(method, loss_fn, state, batch, key=key, num_probes=PROBES)
    return aggregate_tokens(cosines, batch, "best").T, aggregate_tokens(cosines, batch, "mean").T


def _by_blocks(fn: Any, train: Any) -> list[np.ndarray]:
    count = len(train["tokens"])
    size = min(BATCH, count)
    rows = np.arange(-(-count // size) * size) % count
    parts = [
        fn({name: a[rows[i : i + size]] for name, a in train.items()})
        for i in range(0, len(rows), size)
    ]
    columns = zip(*parts, strict=True)
    return [np.concatenate([np.asarray(p) for p in column])[:count] for column in columns]


def _joined(*batches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@cache
def _bm25() -> Attributor:
    return bm25()


@cache
def _mean_hidden(module: Any) -> Attributor:
    return representation_similarity(mean_hidden_state(module))


@cache
def _last_hidden(module: Any) -> Attributor:
    def last(params: Any, batch: Any) -> jax.Array:
        hidden = module.apply({"params": params}, batch["tokens"], method="features")
        ends = batch["mask"].sum(axis=1)
        return jax.numpy.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]

    return representation_similarity(last)


@cache
def _dot(module: Any) -> Attributor:
    return grad_dot(causal_lm_loss(module), scorer="gradients", gradient_chunk=CHUNK)


@cache
def _curved(module: Any) -> Attributor:
    return _ekfac(causal_lm_loss(module), DAMPING, "gradients")


@cache
def _by_token(module: Any, damping: float) -> tuple[Attributor, Partial]:
    loss_fn = causal_lm_loss(module, reduction="sum")
    return _ekfac(loss_fn, damping, "jvp"), loss_fn


def _ekfac(loss_fn: Partial, damping: float, scorer: Scorer) -> Attributor:
    return influence_function(
        loss_fn, solver=ekfac(with_residual=False), curvature="fisher", damping=damping,
        damping_unit="mean_eigenvalue", scorer=scorer, query_chunk=QUERY_CHUNK,
        gradient_chunk=CHUNK if scorer == "gradients" else None,
    )  # fmt: skip


@cache
def _trak(module: Any, projection: int) -> Attributor:
    # the models differ from seed to seed; the projection need not
    return trak(
        causal_lm_loss(module), projection_dim=projection, key=jax.random.key(0), damping=0.1,
        damping_unit="mean_eigenvalue", gradient_chunk_size=CHUNK,
    )  # fmt: skip


@cache
def _adam(module: Any) -> Attributor:
    return forward_inf(causal_lm_loss(module), optimizer=optax.adam(1e-4))


@cache
def _sgd(module: Any) -> Attributor:
    return forward_inf(causal_lm_loss(module), optimizer=optax.sgd(0.1))
