"""Suspicion without a trusted set: how hard, or how much by heart, the label was learnt."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxinf.applications.mislabelled.evidence import Evidence, Method, Running
from jaxinf.applications.mislabelled.noise_rate import check_log_probabilities, class_thresholds
from jaxinf.applications.mislabelled.with_trusted import in_batches, losses
from jaxinf.influence import grad_dot, logra, self_influence
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import estimated_gradient_norms
from jaxinf.typing import PerExampleLoss

MODEL, HELD_OUT, EARLY = ("loss_fn", "params"), ("out_of_fold",), ("loss_fn", "checkpoints")
_PROBES, _RANK = 64, 16


def _loss(evidence: Evidence, running: Running) -> np.ndarray:
    return losses(evidence, evidence.params, running)


@functools.lru_cache(maxsize=16)
def _build(name: str, loss_fn: PerExampleLoss) -> Any:
    # one per loss, so that compiled programs are found again
    if name == "gradient_norm":
        return grad_dot(loss_fn)
    if name == "preconditioned":
        return logra(loss_fn, rank=_RANK, init="pca", with_self_score=True)
    loss = scoring_loss(loss_fn)
    return jax.jit(
        lambda params, batch, key: estimated_gradient_norms(loss, params, batch, key, _PROBES)
    )


def _by(name: str) -> Callable[[Evidence, Running], np.ndarray]:
    def score(evidence: Evidence, running: Running) -> np.ndarray:
        found = self_influence(
            _build(name, evidence.loss),
            evidence.params,
            evidence.train,
            batch_size=running.batch_size,
        )
        return np.asarray(found, np.float64)

    return score


def _gradient_norm(evidence: Evidence, running: Running) -> np.ndarray:
    return np.sqrt(_by("gradient_norm")(evidence, running))


def _forward_norm(evidence: Evidence, running: Running) -> np.ndarray:
    norms, key = _build("forward_norm", evidence.loss), evidence.key
    # the same directions for every example, so that chance moves all alike
    key = jax.random.key(0) if key is None else key
    return in_batches(lambda batch: norms(evidence.params, batch, key), evidence, running)


def own_loss(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log-probability of the given label: float64[N]."""
    logs, y = check_log_probabilities(log_probabilities, labels)
    return -logs[np.arange(len(y)), y]


def own_margin(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of the best other class less that of the given one: float64[N]."""
    logs, y = check_log_probabilities(log_probabilities, labels)
    own = logs[np.arange(len(y)), y]
    others = logs.copy()
    others[np.arange(len(y)), y] = -np.inf
    return others.max(axis=1) - own


def adjusted_margin(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of the best other class less that of the given one, both less their thresholds.

    What confident learning compares: classes that the models favour or slight are evened out.
    """
    logs, y = check_log_probabilities(log_probabilities, labels)
    excess = np.exp(logs) - class_thresholds(logs, y)[None]
    own = excess[np.arange(len(y)), y]
    excess[np.arange(len(y)), y] = -np.inf
    return excess.max(axis=1) - own


def _held_out(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[Evidence, Running], np.ndarray]:
    return lambda evidence, running: measure(np.asarray(evidence.out_of_fold), evidence.labels)


def _over_checkpoints(evidence: Evidence, running: Running) -> list[np.ndarray]:
    count = len(jax.tree.leaves(evidence.checkpoints)[0])
    at = lambda c: jax.tree.map(lambda p: p[c], evidence.checkpoints)
    return [losses(evidence, at(c), running) for c in range(count)]


def _early_loss(evidence: Evidence, running: Running) -> np.ndarray:
    return np.mean(_over_checkpoints(evidence, running), axis=0)


def _early_margin(evidence: Evidence, running: Running) -> np.ndarray:
    """Mean log-odds against the label, from the cross-entropy: log((1 − p) / p)."""
    of_loss = lambda loss: np.log(np.expm1(np.maximum(loss, 1e-12)))
    return np.mean(
        [of_loss(np.minimum(each, 700)) for each in _over_checkpoints(evidence, running)], axis=0
    )


METHODS = {
    "loss": Method(_loss, MODEL, True, "training loss"),
    "gradient_norm": Method(_gradient_norm, MODEL, False, "norm of the loss gradient, exact"),
    "self_jvp": Method(
        _forward_norm, MODEL, True, f"norm of the loss gradient from {_PROBES} forward derivatives"
    ),
    "self_preconditioned": Method(
        _by("preconditioned"),
        MODEL,
        False,
        f"self-influence, inverse Fisher matrix of rank {_RANK}²",
    ),
    "out_of_fold_loss": Method(_held_out(own_loss), HELD_OUT, True, "loss of models without it"),
    "out_of_fold_margin": Method(
        _held_out(own_margin), HELD_OUT, True, "margin of models without it"
    ),
    "confident_learning": Method(
        _held_out(adjusted_margin), HELD_OUT, True, "margin above the classes' mean confidence"
    ),
    "early_loss": Method(_early_loss, EARLY, True, "loss averaged over checkpoints"),
    "early_margin": Method(_early_margin, EARLY, True, "margin averaged over checkpoints"),
}
