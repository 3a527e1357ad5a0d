"""Suspicion with a trusted set: minus the influence on all of it, taken as one query.

The set's mean loss is one group of queries, so the training side costs one direction: one or two
forward passes per training example, whatever the size of the trusted set.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinf.applications.mislabelled.evidence import Evidence, Method, Running
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.influence import (
    Attributor,
    attribute,
    early_ensemble,
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    group_queries,
    influence_function,
    normalise_by_gradient_norm,
)
from jaxinf.typing import Batch, PerExampleLoss

_PROBES = 256
TRUSTED = ("loss_fn", "params", "trusted")


def minus_influence(
    attributor: Attributor, evidence: Evidence, running: Running, params: object = None
) -> np.ndarray:
    """Minus each training example's influence on the mean loss over the trusted set.

    Args:
        attributor: any.
        evidence: with `trusted`.
        running: how.
        params: default those of the evidence.

    Returns:
        float64[N], higher = more suspect.
    """
    trusted = evidence.trusted
    assert trusted is not None
    found = attribute(
        attributor,
        evidence.params if params is None else params,
        group_queries(trusted),
        evidence.train,
        batch_size=running.batch_size,
        store=running.store,
        progress=running.progress,
        diagnostics=False,
    )
    assert found.scores is not None
    return -np.asarray(found.scores[0], np.float64)


@functools.lru_cache(maxsize=32)
def build(name: str, loss_fn: PerExampleLoss, num_models: int = 1) -> Attributor:
    """The attributor of a method; one per loss, so that compiled programs are found again."""
    match name:
        case "jvp":
            return forward_inf_jvp(loss_fn, scorer="jvp")
        case "jvp_cos":
            return normalise_by_gradient_norm(
                build("jvp", loss_fn), loss_fn, num_probes=_PROBES, key=jax.random.key(0)
            )
        case "finite":
            return forward_inf(loss_fn, optimizer=optax.adam(1e-3), steps=20)
        case "preconditioned":
            return influence_function(
                loss_fn,
                solver="cg",
                curvature="fisher",
                damping=1.0,
                damping_unit="mean_eigenvalue",
                scorer="jvp",
            )
        case "early_ensemble":
            return early_ensemble(loss_fn, num_models=num_models, solver="cg")
        case "grad_dot":
            return grad_dot(loss_fn)
    return grad_cos(loss_fn)


def _by(name: str) -> Callable[[Evidence, Running], np.ndarray]:
    return lambda evidence, running: minus_influence(build(name, evidence.loss), evidence, running)


def _finite_loss(evidence: Evidence, running: Running) -> np.ndarray:
    """Loss after the step: the loss before it, less the influence."""
    before = losses(evidence, evidence.params, running)
    return before + _by("finite")(evidence, running)


def _early_ensemble(evidence: Evidence, running: Running) -> np.ndarray:
    count = len(jax.tree.leaves(evidence.checkpoints)[0])
    method = build("early_ensemble", evidence.loss, count)
    return minus_influence(method, evidence, running, evidence.checkpoints)


def losses(evidence: Evidence, params: object, running: Running) -> np.ndarray:
    """Each training example's loss under a model: float64[N], batch by batch."""
    loss = jax.jit(evidence.loss)
    return in_batches(lambda batch: loss(params, batch), evidence, running)


def in_batches(
    measure: Callable[[Batch], jax.Array], evidence: Evidence, running: Running
) -> np.ndarray:
    """A figure of each training example, from batches of one shape: float64[N]."""
    stream = Stream(ArraySource(evidence.train, "train"), running.batch_size)
    found = [
        np.asarray(measure(jax.tree.map(jnp.asarray, each.batch)), np.float64)[
            : int(each.mask.sum())
        ]
        for each in stream
    ]
    return np.concatenate(found)


METHODS = {
    "trusted_jvp": Method(_by("jvp"), TRUSTED, True, "minus influence, exact first order"),
    "trusted_jvp_cos": Method(
        _by("jvp_cos"),
        TRUSTED,
        True,
        f"minus influence over the gradient's norm, from {_PROBES} forward derivatives",
    ),
    "trusted_finite": Method(_by("finite"), TRUSTED, True, "minus influence, 20 steps of Adam"),
    "trusted_finite_loss": Method(
        _finite_loss, TRUSTED, True, "loss after 20 steps of Adam on the trusted set"
    ),
    "trusted_preconditioned": Method(
        _by("preconditioned"), TRUSTED, True, "minus influence, inverse Fisher matrix, damping 1"
    ),
    "trusted_early_ensemble": Method(
        _early_ensemble,
        ("loss_fn", "checkpoints", "trusted"),
        True,
        "minus influence on margins, over several early models",
    ),
    "trusted_grad_dot": Method(
        _by("grad_dot"),
        TRUSTED,
        False,
        "minus the gradients' dot product",
    ),
    "trusted_grad_cos": Method(
        _by("grad_cos"),
        TRUSTED,
        False,
        "minus the gradients' cosine",
    ),
}
