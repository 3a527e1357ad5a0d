"""What a causal language model is asked: its loss on a text, on an answer, token by token."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.adapters.shared import ByValue
from jaxinf.errors import InputError
from jaxinf.models.losses import cross_entropy
from jaxinf.typing import Batch, Params

Reduction: TypeAlias = Literal["mean", "sum"]
"""Over the tokens that count: nats per token, or nats per text."""


def causal_lm_loss(module: Any, *, reduction: Reduction = "mean") -> Partial:
    """Per-example loss of a causal language model, as every attributor takes it.

    A batch holds `tokens` int[B, T] and `mask` bool[B, T], true for the tokens that count as
    something to predict: all of a text's, or an answer's alone (`encode_texts`,
    `encode_answers`); optionally `weights` float[B, T], which the tokens' losses are multiplied by.
    Padding stands behind the text, where causal attention does not look, and is
    masked.

    Args:
        module: applied as `module.apply({"params": params}, tokens)` -> logits float[B, T, V],
            such as a `CausalLM`.
        reduction: `"mean"` or `"sum"` over a text's tokens that count.

    Returns:
        `loss_fn(params, batch) -> float[B]` in nats; 0 where nothing counts, NaN where a token
        that counts is not in the vocabulary.

    Raises:
        InputError: for another reduction; when called, for a batch without tokens or mask.

    Example:
        >>> import flax.linen as nn
        >>> loss = causal_lm_loss(nn.Embed(4, 4, embedding_init=nn.initializers.zeros))
        >>> batch = {"tokens": jnp.array([[0, 1, 2]]), "mask": jnp.array([[False, True, True]])}
        >>> loss({"embedding": jnp.zeros((4, 4))}, batch).tolist()
        [1.386...]
    """
    return Partial(SequenceLoss(token_nats(module), _check(reduction)))


def token_nats(module: Any) -> "TokenNats":
    """`(params, batch) -> float[B, T]`: what predicting each token costs, 0 where none counts."""
    return TokenNats(module)


@dataclass(frozen=True, eq=False)
class TokenNats(ByValue):
    """Cross-entropy of each token given those before it; the first has none before it."""

    module: Any

    def __call__(self, params: Params, batch: Batch) -> Float[jax.Array, "B T"]:
        """float[B, T]."""
        tokens, counted = _read(batch)
        packed = {key: batch[key] for key in ("positions", "segments") if key in batch}
        logits = self.module.apply({"params": params}, tokens, **packed)[:, :-1]
        # what does not count may hold any id of the vocabulary
        targets = jnp.where(counted, tokens[:, 1:], 0)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        nats = jnp.where(counted, cross_entropy(logits, {"y": targets}), 0)
        nats = jnp.pad(nats, ((0, 0), (1, 0)))
        return nats * batch["weights"].astype(nats.dtype) if "weights" in batch else nats


@dataclass(frozen=True, eq=False)
class SequenceLoss(ByValue):
    """Sum or mean of the tokens' nats."""

    nats: TokenNats
    reduction: Reduction

    def __call__(self, params: Params, batch: Batch) -> Float[jax.Array, " B"]:
        """float[B]."""
        return jnp.sum(self.parts(params, batch), axis=1)

    def parts(self, params: Params, batch: Batch) -> Float[jax.Array, "B T"]:
        """Each token's share of the loss: they sum to it."""
        nats = self.nats(params, batch)
        if self.reduction == "sum":
            return nats
        counted = jnp.sum(_read(batch)[1], axis=1)
        return nats / jnp.maximum(counted, 1).astype(nats.dtype)[:, None]


def sequence_loss(loss_fn: Callable[..., Any]) -> SequenceLoss:
    """The `SequenceLoss` inside what `causal_lm_loss` made.

    Raises:
        InputError: it was made by something else.
    """
    inner = loss_fn.func if isinstance(loss_fn, Partial) else loss_fn
    if not isinstance(inner, SequenceLoss):
        raise InputError("this needs a loss from causal_lm_loss, which knows of tokens")
    return inner


def _read(batch: Batch) -> tuple[jax.Array, jax.Array]:
    if "tokens" not in batch or "mask" not in batch:
        raise InputError(f"the batch holds {sorted(batch)}: it needs tokens and mask, each [B, T]")
    return jnp.asarray(batch["tokens"]), jnp.asarray(batch["mask"])[:, 1:].astype(bool)


def _check(reduction: Reduction) -> Reduction:
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
    return reduction
