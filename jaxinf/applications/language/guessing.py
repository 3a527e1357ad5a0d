"""Does the model know its training texts at all? With another model's tokenizer it does not."""

import math
import warnings
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxinf.applications.language.losses import causal_lm_loss
from jaxinf.typing import Batch, Params

_TEXTS = 64
_TOKENS_AT_ONCE = 4096  # logits are tokens times vocabulary
_MARGIN = 0.05  # nats: untrained weights guess, give or take less than this


class LanguageWarning(UserWarning):
    """Scores are computed, but the model does not seem to belong to the texts."""


def warn_if_guessing(
    module: Any, params: Params, train: Batch, vocab_size: int, *, stacklevel: int = 2
) -> None:
    """Warn of a model whose loss on its training texts is above that of a uniform guess, ln V.

    A tokenizer of the right size whose tokens are other ones cannot be told by its numbers, but
    by what the model makes of them.

    Args:
        module: a `CausalLM`.
        params: its parameters.
        train: `tokens` and `mask`, [N, T].
        vocab_size: V, of the model.
        stacklevel: whose line the warning names, as in `warnings.warn`.
    """
    nats, guess = mean_nats(module, params, train), math.log(vocab_size)
    if nats > guess + _MARGIN:
        warnings.warn(
            f"the model does worse than guessing on the training texts ({nats:.2f} nats per token, "
            f"a guess among {vocab_size} tokens costs {guess:.2f}): is the tokenizer the one that "
            "it was trained with, and are these its texts?",
            LanguageWarning,
            stacklevel=stacklevel + 1,
        )


def mean_nats(module: Any, params: Params, batch: Batch, *, most: int = _TEXTS) -> float:
    """Mean loss per token over at most `most` texts, taken evenly from all of them.

    Args:
        module: a `CausalLM`, or what is applied like it.
        params: its parameters.
        batch: `tokens` and `mask`, [N, T].
        most: how many texts are looked at.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> batch = {"tokens": np.array([[0, 1, 2]]), "mask": np.array([[False, True, True]])}
        >>> round(mean_nats(nn.Embed(4, 4), {"embedding": jnp.zeros((4, 4))}, batch), 3)
        1.386
    """
    count, length = batch["tokens"].shape
    rows = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    size = max(1, min(len(rows), _TOKENS_AT_ONCE // length))
    # blocks of one size, so that one program serves them all
    filled = np.resize(rows, -(-len(rows) // size) * size)
    loss = causal_lm_loss(module, reduction="sum")
    nats = [
        np.asarray(_losses(loss, params, {name: batch[name][block] for name in ("tokens", "mask")}))
        for block in np.split(filled, len(filled) // size)
    ]
    total = float(np.concatenate(nats)[: len(rows)].sum(dtype=np.float64))
    return total / max(int(batch["mask"][rows, 1:].sum()), 1)


@jax.jit
def _losses(loss: Partial, params: Params, batch: Batch) -> jax.Array:
    return loss(params, batch)
