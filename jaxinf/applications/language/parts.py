"""Scores split over tokens, or over the sentences of packed rows."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.adapters.shared import ByValue
from jaxinf.applications.language.losses import SequenceLoss, sequence_loss
from jaxinf.errors import InputError
from jaxinf.influence import Attributor
from jaxinf.influence.attributor import PrepareFn
from jaxinf.influence.forward_inf import DirectionState, StepState
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


def token_scores(
    attributor: Attributor, loss_fn: PerExampleLoss, state: PyTree, batch: Batch
) -> Float[jax.Array, "K B T"]:
    """What each token of each training text contributes to its score.

    A text's loss is a sum over its tokens, so a score that is a change of that loss is one too:
    the scores over T sum to `attributor.score(state, batch)`. A token's share is that of
    *predicting* it; the first of a row has none.

    Sign: as the attributor's; positive = being taught to predict this token here lowers the
    query's loss.

    Cost: that of `attributor.score`.

    Args:
        attributor: one whose training side is forward-only: `forward_inf`; or `forward_inf_jvp`,
            `grad_dot`, `influence_function` and the like with `scorer="jvp"`.
        loss_fn: the loss it was made with, from `causal_lm_loss`.
        state: what its `prepare` returned.
        batch: `tokens` and `mask`, [B, T].

    Returns:
        float[K, B, T], 0 where nothing counts.

    Raises:
        InputError: the attributor's score is not a change of the loss (cosines, normalised
            scores), or takes the gradient of each example.

    Example:
        >>> import flax.linen as nn
        >>> from jaxinf.applications.language import causal_lm_loss
        >>> from jaxinf.influence import grad_dot
        >>> loss, params = causal_lm_loss(nn.Embed(3, 3)), {"embedding": jnp.zeros((3, 3))}
        >>> batch = {"tokens": jnp.array([[0, 1, 2]]), "mask": jnp.array([[False, True, True]])}
        >>> method = grad_dot(loss, scorer="jvp")
        >>> state = method.prepare(params, batch)
        >>> found = token_scores(method, loss, state, batch)
        >>> abs(float(found.sum() - method.score(state, batch)[0, 0])) < 1e-6
        True
    """
    rows, length = batch["tokens"].shape
    parts = _score_parts(attributor, _Flat(sequence_loss(loss_fn), "tokens"), state, batch)
    _check_count(parts, rows * length, rows)
    return parts.reshape(-1, rows, length)


class TokenShares(NamedTuple):
    """A method's scores, taken apart into those of the tokens.

    Attributes:
        prepare: `(params, queries, train) -> state`, as an `Attributor`'s.
        score: `(state, batch) -> float[K, B, T]`, 0 where nothing counts.
        reduction: what makes a text's score of its tokens that count: their `"sum"`, or the
            highest (`"max"`).
    """

    prepare: PrepareFn
    score: Callable[[PyTree, Batch], Float[jax.Array, "K B T"]]
    reduction: Literal["sum", "max"] = "sum"


def token_shares(
    attributor: Attributor,
    loss_fn: PerExampleLoss,
    normalise: Callable[[Attributor], Attributor] = lambda plain: plain,
) -> TokenShares:
    """Shares of `normalise(attributor)`'s scores, which sum to them.

    A normaliser divides all tokens of a text by the text's own number.

    Sign: as the attributor's. Cost: that of `normalise(attributor).score`.

    Args:
        attributor: as in `token_scores`.
        loss_fn: as in `token_scores`.
        normalise: what is done to its scores, such as `normalise_by_loss`.

    Returns:
        `TokenShares`, whose `score` raises as `token_scores` does.

    Example:
        >>> import flax.linen as nn
        >>> from jaxinf.applications.language import causal_lm_loss
        >>> from jaxinf.influence import grad_dot, normalise_by_loss
        >>> loss, params = causal_lm_loss(nn.Embed(3, 3)), {"embedding": jnp.zeros((3, 3))}
        >>> batch = {"tokens": jnp.array([[0, 1, 2]]), "mask": jnp.array([[False, True, True]])}
        >>> relative = lambda plain: normalise_by_loss(plain, loss)
        >>> shares = token_shares(grad_dot(loss, scorer="jvp"), loss, relative)
        >>> shares.score(shares.prepare(params, batch), batch).shape
        (1, 1, 3)
    """

    def rows_of_tokens(state: PyTree, batch: Batch) -> jax.Array:
        found = token_scores(attributor, loss_fn, state, batch)
        return jnp.moveaxis(found, 2, 1).reshape(-1, found.shape[1])

    # to a normaliser the tokens are so many queries more, [K T, B]
    normalised = normalise(attributor._replace(score=rows_of_tokens))

    def score(state: PyTree, batch: Batch) -> jax.Array:
        rows, length = batch["tokens"].shape
        return jnp.moveaxis(normalised.score(state, batch).reshape(-1, length, rows), 1, 2)

    return TokenShares(normalised.prepare, score)


def segment_scores(
    attributor: Attributor, loss_fn: PerExampleLoss, state: PyTree, packed: Batch
) -> Float[jax.Array, "K B S"]:
    """Scores of every sentence of packed rows: those that it would get in a row of its own.

    Sign: as the attributor's. Cost: that of `attributor.score` on the packed rows.

    Args:
        attributor: as in `token_scores`.
        loss_fn: as in `token_scores`.
        state: as in `token_scores`.
        packed: a batch from `pack`.

    Returns:
        float[K, B, S]; 0 where a row has fewer than S sentences. `unpack` puts them in order.

    Raises:
        InputError: as `token_scores`, and for a batch that is not packed.
    """
    rows, size = packed["rows"].shape
    parts = _score_parts(attributor, _Flat(sequence_loss(loss_fn), "segments"), state, packed)
    _check_count(parts, rows * size, rows)
    return parts.reshape(-1, rows, size)


def segment_losses(loss: SequenceLoss, params: Params, packed: Batch) -> Float[jax.Array, "B S"]:
    """Loss of every sentence of packed rows, by the loss's own reduction."""
    if "segments" not in packed or "rows" not in packed:
        raise InputError(f"the batch holds {sorted(packed)}: pack it first")
    size = packed["rows"].shape[1]
    segments = packed["segments"]
    total = jax.vmap(lambda values, ids: jax.ops.segment_sum(values, ids, size + 1)[1:])
    found = total(loss.nats(params, packed), segments)
    if loss.reduction == "sum":
        return found
    counted = total(jnp.asarray(packed["mask"]).at[:, 0].set(False).astype(found.dtype), segments)
    return found / jnp.maximum(counted, 1)


@dataclass(frozen=True, eq=False)
class _Flat(ByValue):
    """A loss whose parts stand where the examples stood: float[B * parts]."""

    loss: SequenceLoss
    what: str
    precision: str | None = None

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        parts = self.loss.parts if self.what == "tokens" else partial(segment_losses, self.loss)
        with jax.default_matmul_precision(self.precision) if self.precision else nullcontext():
            return parts(params, batch).reshape(-1)


def _score_parts(attributor: Attributor, flat: _Flat, state: PyTree, batch: Batch) -> jax.Array:
    if not isinstance(state, StepState | DirectionState):
        raise InputError(
            f"the scores of {attributor.name} are no change of a loss, which could be split: use "
            "forward_inf, forward_inf_jvp, grad_dot or influence_function"
        )
    if isinstance(state, StepState):
        # as the finite step's own loss: a small step must not be rounded away
        flat = replace(flat, precision="highest")
    # the scorers follow whatever loss the state carries, so its parts are scored as examples are
    return attributor.score(state._replace(loss_fn=Partial(flat)), batch)


def _check_count(parts: jax.Array, expected: int, rows: int) -> None:
    if parts.shape[1] != expected:
        raise InputError(
            f"the attributor took gradients of its {rows} examples, which cannot be split: pass "
            'scorer="jvp" where it is made'
        )
