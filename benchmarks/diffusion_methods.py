"""The contenders of the diffusion benchmark, and how their rankings are judged.

Every method scores the images of the tuned model and, as a contrast, those that the base model
makes from the same noise; what the two have in common is not due to the exemplars. The contrast
is the difference of the two rows, for every method alike.
"""

import functools
import time
from collections.abc import Callable
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
    grad_cos,
    grad_dot,
    influence_function,
    normalise_by_gradient_norm,
    normalise_by_loss,
    representation_similarity,
    trak,
)
from jaxinf.models.diffusion import EDM


class Contender(NamedTuple):
    """A method: its kind (trivial, gradient, ours, both models), and the weights it looks at."""

    name: str
    kind: str
    at: str
    attributor: Attributor


def contenders(setup: Setup, model: EDM, classifier: Any, development: bool) -> list[Contender]:
    """All methods; on the development part also the settings that are chosen from."""
    draws = draw_noise(jax.random.key(7), setup.draws, model.image_shape)
    loss = denoising_loss(model, draws)
    pixels = lambda params, batch: batch["x"]

    def denoiser(params: Any, batch: Any) -> jax.Array:
        sigma = jnp.full(len(batch["x"]), 0.3)
        return model.apply({"params": params}, batch["x"], sigma, batch["y"], method="features")

    features = classifier_features(classifier)
    found = [
        Contender(
            "pixels, nearest",
            "trivial",
            "none",
            representation_similarity(pixels, metric="euclidean"),
        ),
        Contender("pixels, cosine", "trivial", "none", representation_similarity(pixels)),
        Contender(
            "classifier's features, cosine",
            "trivial",
            "classifier",
            representation_similarity(features),
        ),
        Contender(
            "denoiser's features, cosine", "trivial", "base", representation_similarity(denoiser)
        ),
        Contender(
            "denoiser's features, cosine", "trivial", "tuned", representation_similarity(denoiser)
        ),
    ]
    # one object for both weights, so that each method is compiled once
    gradients = [
        ("grad_dot", grad_dot(loss, scorer="gradients")),
        ("grad_cos", grad_cos(loss, scorer="gradients")),
        (f"TRAK({setup_dim(setup)})", _trak(setup, loss)),
    ]
    ours = _ours(loss, development)
    if setup.data == "digits":  # a check that it runs: few methods, since they are slow to compile
        gradients, ours = gradients[1:2], ours[:1]
    for kind, made in (("gradient", gradients), ("ours", ours)):
        found += [Contender(name, kind, at, a) for name, a in made for at in ("base", "tuned")]
    return found


def setup_dim(setup: Setup) -> int:
    """Dimension of TRAK's projection."""
    return min(512, setup.candidates // 2)


def _trak(setup: Setup, loss: Any) -> Attributor:
    return trak(
        loss,
        projection_dim=setup_dim(setup),
        key=jax.random.key(3),
        damping=1.0,
        damping_unit="mean_eigenvalue",
        measure="loss",
    )


def _ours(loss: Any, development: bool) -> list[tuple[str, Attributor]]:
    probes = functools.partial(
        normalise_by_gradient_norm, loss_fn=loss, num_probes=8, key=jax.random.key(5)
    )
    one = forward_inf_jvp(loss, scorer="jvp", query_chunk=8)
    several = forward_inf(loss, optimizer=_adam(1e-3), steps=10)
    preconditioned = influence_function(
        loss,
        solver="woodbury",
        curvature="fisher",
        damping=0.1,
        damping_unit="mean_eigenvalue",
        scorer="jvp",
    )
    chosen = [
        ("finite step", forward_inf(loss, optimizer=optax.sgd(1e-2))),
        ("JVP", one),
        ("JVP / loss", normalise_by_loss(one, loss)),
        ("JVP / gradient norm (8 probes)", probes(one)),
        ("10 Adam steps", several),
        ("10 Adam steps / loss", normalise_by_loss(several, loss)),
        ("10 Adam steps / gradient norm (8 probes)", probes(several)),
        ("preconditioned JVP", preconditioned),
        ("preconditioned JVP / gradient norm (8 probes)", probes(preconditioned)),
    ]
    if development:
        for rate, steps in ((3e-4, 30), (1e-3, 40)):
            made = forward_inf(loss, optimizer=_adam(rate), steps=steps)
            chosen.append((f"{steps} Adam steps of {rate:g}", made))
            chosen.append((f"{steps} Adam steps of {rate:g} / loss", normalise_by_loss(made, loss)))
    return chosen


@functools.lru_cache(maxsize=8)
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


@functools.lru_cache(maxsize=128)
def _compiled(score: Callable[..., Any]) -> Callable[..., Any]:
    """One compiled program per method, for all sets."""
    return jax.jit(score)


def score_all(
    attributor: Attributor, params: Any, queries: Any, train: Any, batch_size: int
) -> tuple[np.ndarray, float]:
    """Scores [K, N] and the seconds they took; as `jaxinf.attribute`, which compiles every time."""
    began = time.perf_counter()
    state = attributor.prepare(params, queries, Stream(as_source(train), batch_size))
    count, parts = len(train["y"]), []
    for start in range(0, count, batch_size):
        rows = jax.tree.map(lambda a, s=start: a[s : s + batch_size], train)
        parts.append(_compiled(attributor.score)(state, pad_rows(rows, batch_size)))
    scores = np.concatenate([np.asarray(part) for part in parts], axis=1)[:, :count]
    return scores, time.perf_counter() - began


def judge(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Recall at 10 and mean average precision of rankings [K, N], raw and as a contrast.

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
