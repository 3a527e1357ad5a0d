"""Per-example losses and outputs, from what a model returns and the batch.

A label outside the model's classes gives NaN for its example. Under `jit` an indexing error
cannot be raised: JAX clamps, wraps or fills instead, so a label of -1 or C would otherwise be
scored, silently, as some other class. NaN shows in the loss, in its gradients and in every score
derived from them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxinf.errors import InputError


def _poison(labels: jax.Array, num_classes: int) -> jax.Array:
    # a factor, not a `where`: gradients become NaN too
    return jnp.where((labels >= 0) & (labels < num_classes), 1.0, jnp.nan)


def _count_classes(logits: jax.Array) -> int:
    if logits.shape[-1] < 2:
        raise InputError(f"logits have shape {logits.shape}: at least two classes are needed")
    return logits.shape[-1]


def cross_entropy(logits: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    """Softmax cross-entropy in nats, per example (or per token: any leading axes).

    Taken from the odds against the label, so that the loss and its gradient keep their relative
    precision where the model is all but sure, as it is of most of what it was trained on: -log p
    rounds to 0 in float32 from p = 1 - 6e-8 on, and p - 1, of which the gradient is made, loses its
    digits long before. Influence compares gradients of such examples; with the usual formula they
    changed with the size of the batch. Odds below 1e-38 count as 1e-38, with a gradient of 0.

    Args:
        logits: float[B, ..., C] with C at least 2.
        batch: `batch["y"]` int[B, ...], classes 0 to C - 1.

    Returns:
        float[B, ...]; NaN where the label is negative or at least C.

    Raises:
        InputError: for a single class.

    Example:
        >>> cross_entropy(jnp.zeros((3, 2)), {"y": jnp.array([0, 1, -1])}).tolist()
        [0.693..., 0.693..., nan]
        >>> cross_entropy(jnp.array([[20.0, 0.0]]), {"y": jnp.array([0])}).tolist()
        [2.06...e-09]
    """
    labels, kept = batch["y"], logits.dtype
    num_classes = _count_classes(logits)
    logits = logits.astype(jnp.promote_types(kept, jnp.float32))
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    # over all classes, the label's too: a maximum of what is there already takes no memory
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    is_label = jax.nn.one_hot(labels, num_classes, dtype=bool)
    others = jnp.sum(jnp.where(is_label, 0, jnp.exp(logits - top[..., None])), axis=-1)
    smallest = jnp.finfo(logits.dtype).tiny
    log_odds_against = jnp.log(jnp.maximum(others, smallest)) + top - own
    return (jax.nn.softplus(log_odds_against) * _poison(labels, num_classes)).astype(kept)


def margin(logits: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    """Log-odds of the correct class, per example: log p / (1 - p). An output, not a loss.

    Larger is a more confident, correct prediction; `-margin` orders examples as a loss does.

    Args:
        logits: float[B, C] with C at least 2.
        batch: `batch["y"]` int[B], classes 0 to C - 1.

    Returns:
        float[B]; NaN where the label is negative or at least C.

    Raises:
        InputError: for a single class.

    Reference:
        Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023 (the model output
        function for classification).

    Example:
        >>> margin(jnp.zeros((1, 3)), {"y": jnp.array([0])}).tolist()
        [-0.693...]
    """
    labels, num_classes = batch["y"], _count_classes(logits)
    correct = jax.nn.one_hot(labels, num_classes, dtype=bool)
    own = jnp.sum(logits, axis=-1, where=correct)
    others = jax.nn.logsumexp(logits, axis=-1, where=~correct)
    return (own - others) * _poison(labels, num_classes).astype(logits.dtype)


def next_token_cross_entropy(logits: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    """Cross-entropy in nats per predicted token, averaged over each sequence.

    Position t predicts token t + 1, so T tokens give T - 1 predictions. As precise as
    `cross_entropy`.

    Args:
        logits: float[B, T, V] with V at least 2.
        batch: `batch["x"]` int[B, T] tokens; optionally `batch["mask"]` bool or 0/1 [B, T], true
            for the tokens that count as something to predict (its first column is not used).

    Returns:
        float[B]; 0 for a sequence with nothing to predict, NaN where a token that counts is
        negative or at least V.

    Raises:
        InputError: for a vocabulary of one token.

    Example:
        >>> logits, tokens = jnp.zeros((1, 3, 2)), jnp.array([[0, 1, 1]])
        >>> next_token_cross_entropy(logits, {"x": tokens}).tolist()
        [0.693...]
    """
    targets = batch["x"][:, 1:]
    counted = jnp.ones(targets.shape, bool)
    if "mask" in batch:
        counted = jnp.asarray(batch["mask"])[:, 1:].astype(bool)
    # what does not count may hold any padding id, and must not turn the gradient into NaN
    targets = jnp.where(counted, targets, 0)
    losses = cross_entropy(logits[:, :-1], {"y": targets})
    total = jnp.where(counted, losses, 0).sum(axis=-1)
    return total / jnp.maximum(counted.sum(axis=-1), 1).astype(total.dtype)


def squared_error(outputs: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    """Squared error summed over the outputs of each example, without a factor 1/2.

    Args:
        outputs: float[B, ...].
        batch: `batch["y"]`, of the same shape; [B] also fits outputs [B, 1].

    Returns:
        float[B].

    Raises:
        InputError: when the shapes differ (broadcasting would pair every output with every y).

    Example:
        >>> squared_error(jnp.ones((2, 1)), {"y": jnp.array([1.0, 3.0])}).tolist()
        [0.0, 4.0]
    """
    targets = jnp.asarray(batch["y"])
    if outputs.shape not in (targets.shape, (*targets.shape, 1)):
        raise InputError(f"outputs have shape {outputs.shape} but y {targets.shape}: make them fit")
    errors = optax.squared_error(outputs, targets.reshape(outputs.shape))
    return errors.reshape(errors.shape[0], -1).sum(axis=-1)
