"""The contenders of the diffusion benchmark: trivial, by gradients, and by forward passes.

Every method scores the images of the tuned model and, as a contrast, those that the base model
makes from the same noise; what the two have in common is not due to the exemplars. The contrast
is the difference of the two rows, for every method alike.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import average_precision_score

from benchmarks.diffusion_models import Setup, classifier_features
from jaxinf.applications.diffusion import denoising_loss, draw_noise
from jaxinf.engine import Stream, as_source
from jaxinf.engine.batching import pad_rows
from jaxinf.evaluation import recall_at_k
from jaxinf.influence import (
    Attributor,
    forward_inf,
    forward_inf_jvp,
    from_direction,
    grad_cos,
    grad_dot,
    influence_function,
    normalise_by_gradient_norm,
    normalise_by_loss,
    representation_similarity,
    trak,
    update_direction,
)
from jaxinf.models.diffusion import EDM
from jaxinf.typing import PerExampleLoss

P_MEANS = (-3.6, -2.4, -1.2, 0.0, 1.2)
"""Means of ln σ that the development part tries; −1.2 is that of the training."""

CHOSEN_P_MEAN = -2.4
"""Of highest mAP in development; less a control −1.2 serves better (docs/diffusion.md)."""

TRIED = ((1, 1e-3), (3, 1e-3), (10, 3e-4), (30, 3e-4), (30, 1e-3))
"""Steps and rates beside 10 of 0.001 that the development part tries."""

STEP, TRIED_STEPS = 1e-2, (1e-3, 1e-1)
"""Rate of the single step of gradient descent, and those that the development part tries beside."""


class Contender(NamedTuple):
    """A method.

    Attributes:
        name: as in the tables.
        kind: `"trivial"`, `"gradient"` or `"ours"`, which passes forward only over the candidates.
        at: the weights it looks at: `"base"`, `"tuned"`, `"classifier"` or `"none"`.
        attributor: made of which loss it is.
        divided: whether it also stands divided by each candidate's loss.
    """

    name: str
    kind: str
    at: str
    attributor: Attributor
    divided: bool = False


def contenders(setup: Setup, model: EDM, classifier: Any) -> list[Contender]:
    """The trivial methods, which know nothing of noise levels."""

    def denoiser(params: Any, batch: Any) -> jax.Array:
        sigma = jnp.full(len(batch["x"]), 0.3)
        return model.apply({"params": params}, batch["x"], sigma, batch["y"], method="features")

    pixels = lambda params, batch: batch["x"]
    nearest = representation_similarity(pixels, metric="euclidean")
    features = representation_similarity(classifier_features(classifier))
    inner = representation_similarity(denoiser)
    return [
        Contender("pixels, nearest", "trivial", "none", nearest),
        Contender("pixels, cosine", "trivial", "none", representation_similarity(pixels)),
        Contender("classifier's features", "trivial", "classifier", features),
        Contender("denoiser's features", "trivial", "base", inner),
        Contender("denoiser's features", "trivial", "tuned", inner),
    ]


def by_loss(
    setup: Setup, model: EDM, loss: PerExampleLoss, development: bool
) -> tuple[list[Contender], dict[str, Attributor]]:
    """Methods that differentiate a denoising loss, and 1 / loss."""
    gradients = [
        ("grad_dot", grad_dot(loss, scorer="gradients")),
        ("grad_cos", grad_cos(loss, scorer="gradients")),
    ]
    step = ("finite step", forward_inf(loss, optimizer=optax.sgd(STEP)))
    ours = [("10 Adam steps", forward_inf(loss, optimizer=_adam(1e-3), steps=10))]
    if development:
        ours.append(step)
        for rate in TRIED_STEPS:
            ours.append((f"finite step of {rate:g}", forward_inf(loss, optimizer=optax.sgd(rate))))
        for steps, rate in TRIED:
            made = forward_inf(loss, optimizer=_adam(rate), steps=steps)
            ours.append((f"{steps} Adam steps of {rate:g}", made))
    else:
        gradients.append((f"TRAK, {_dimension(setup)} dimensions", _trak(setup, loss)))
        ours = [
            step,
            ("JVP", forward_inf_jvp(loss, scorer="jvp", query_chunk=8)),
            ("JVP / gradient norm", _cosine(loss)),
            ("JVP, other draws for the query", _with_other_draws(setup, model, loss)),
            *ours,
            (
                "10 Adam steps, JVP",
                forward_inf_jvp(loss, optimizer=_adam(1e-3), steps=10, scorer="jvp", query_chunk=8),
            ),
        ]
    ours.append(("preconditioned JVP", _preconditioned(loss)))
    if setup.data == "digits":  # a check that it runs: few methods, since they are slow to compile
        gradients, ours = gradients[1:2], ours[1:2]
    found = []
    for kind, made in (("gradient", gradients), ("ours", ours)):
        for name, attributor in made:
            # what is divided by a norm already is not divided by the loss besides
            divided = kind == "ours" and name != "JVP / gradient norm"
            divided |= development and name == "grad_dot"
            # one object for both weights, so that each method is compiled once
            found += [Contender(name, kind, at, attributor, divided) for at in ("base", "tuned")]
    ones = Attributor(
        lambda params, queries, train=None: (),
        lambda state, batch: jnp.ones((1, len(batch["y"]))),
        None,
        None,
        lambda k: 0.0,
        "ones",
    )
    return found, {"loss": normalise_by_loss(ones, loss)}


def _dimension(setup: Setup) -> int:
    return min(512, setup.candidates // 2)


def _trak(setup: Setup, loss: PerExampleLoss) -> Attributor:
    return trak(
        loss,
        projection_dim=_dimension(setup),
        key=jax.random.key(3),
        damping=1.0,
        damping_unit="mean_eigenvalue",
        measure="loss",
    )


def _with_other_draws(setup: Setup, model: EDM, loss: PerExampleLoss) -> Attributor:
    """The query's step over draws of its own: is what both sides share signal or noise?"""
    others = draw_noise(jax.random.key(8), setup.draws, model.image_shape)
    step = update_direction(denoising_loss(model, others), optax.sgd(STEP))
    return from_direction(step, loss, scorer="jvp", query_chunk=8)


def _cosine(loss: PerExampleLoss) -> Attributor:
    """The gradients' cosine by forward derivatives alone: norms from 16 of them."""
    product = forward_inf_jvp(loss, scorer="jvp", query_chunk=8)
    return normalise_by_gradient_norm(product, loss, num_probes=16, key=jax.random.key(9))


def _preconditioned(loss: PerExampleLoss) -> Attributor:
    return influence_function(
        loss,
        solver="woodbury",
        curvature="fisher",
        damping=1.0,
        damping_unit="mean_eigenvalue",
        scorer="jvp",
    )


@functools.lru_cache(maxsize=8)
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


class Scored(NamedTuple):
    """One method's scores float[2K, N] and the seconds they took."""

    name: str
    kind: str
    at: str
    scores: np.ndarray
    seconds: float


def score_all(
    methods: list[Contender],
    divisors: dict[str, Attributor],
    weights: dict[str, Any],
    queries: Any,
    candidates: Any,
) -> Iterator[Scored]:
    """Scores of every method, and of those that are divided also by each divisor."""
    shares = {
        (name, at): run(divisor, weights[at], queries, candidates)
        for name, divisor in divisors.items()
        for at in ("base", "tuned")
    }
    for method in methods:
        found, seconds = run(method.attributor, weights[method.at], queries, candidates)
        yield Scored(method.name, method.kind, method.at, found, seconds)
        if method.divided:
            for name in divisors:
                share, more = shares[name, method.at]
                label = f"{method.name} / {name}"
                yield Scored(label, method.kind, method.at, found * share, seconds + more)


@functools.lru_cache(maxsize=256)
def compiled(score: Callable[..., Any]) -> Any:
    """One compiled program per method, for all sets."""
    return jax.jit(score)


def run(
    attributor: Attributor, params: Any, queries: Any, train: Any, batch_size: int = 125
) -> tuple[np.ndarray, float]:
    """Scores [K, N] and the seconds they took; as `jaxinf.attribute`, which compiles every time."""
    began = time.perf_counter()
    count = len(train["y"])
    batch_size = min(batch_size, count)
    state = attributor.prepare(params, queries, Stream(as_source(train), batch_size))
    parts = []
    for start in range(0, count, batch_size):
        rows = jax.tree.map(lambda a, s=start: a[s : s + batch_size], train)
        parts.append(compiled(attributor.score)(state, pad_rows(rows, batch_size)))
    scores = np.concatenate([np.asarray(part) for part in parts], axis=1)[:, :count]
    return scores, time.perf_counter() - began


def loss_at(setup: Setup, model: EDM, p_mean: float, draws: int | None = None) -> PerExampleLoss:
    """The denoising loss over the benchmark's draws."""
    key = jax.random.key(7)
    drawn = draw_noise(key, draws or setup.draws, model.image_shape, p_mean=p_mean)
    return denoising_loss(model, drawn)


def judge(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Recall at 10 and mean average precision of rankings [2K, N], raw and as a contrast.

    The first half of the rows are images of the tuned model, the second half those of the base.
    """
    half = len(scores) // 2
    versions = {"": scores[:half], "_contrast": scores[:half] - scores[half:]}
    found = {}
    for suffix, rows in versions.items():
        for extent, ranked in (("", rows), ("_together", _together(rows))):
            truth = np.broadcast_to(relevant, ranked.shape)
            found[f"recall10{extent}{suffix}"] = float(recall_at_k(ranked, truth, 10).mean())
            precisions = [average_precision_score(relevant, row) for row in ranked]
            found[f"map{extent}{suffix}"] = float(np.mean(precisions))
    return found


def _together(rows: np.ndarray) -> np.ndarray:
    """All images of a model as one query: the mean of their standardised scores, [1, N]."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return (centred / (centred.std(axis=1, keepdims=True) + 1e-30)).mean(axis=0, keepdims=True)
