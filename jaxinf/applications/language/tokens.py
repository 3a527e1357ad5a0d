"""Which words of the sentences found carry their influence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.applications.language.methods import ASKED_WHOLE, TextMethod, build_method, weigh
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.errors import InputError
from jaxinf.influence.forward_inf import DirectionState, StepState
from jaxinf.influence.normalise import NormalisedState
from jaxinf.typing import Batch, Params


def proponent_tokens(
    module: Any,
    params: Params,
    method: TextMethod,
    queries: Batch,
    train: Batch,
    rows: ArrayLike,
    *,
    batch_size: int = 256,
    **options: Any,
) -> Float[np.ndarray, "K k T"]:
    """Shares of the tokens of each query's own proponents in the method's scores.

    They sum to the sentence's score, as `trace_facts` has it with the same options and key; of
    `"best-token"`, where a share is the token's own score, the highest one is the sentence's.

    Sign: positive = being taught to predict this token here makes the answer likelier; of
    `"by-token"`, the whole question with its answer.

    Args:
        module: a `CausalLM`.
        params: its parameters.
        method: one of `build_method`, but `"trak"`, `"hidden-states"` and `"whitened-states"`.
        queries: K questions as arrays, from `FactTrace.asked(method)`.
        train: all N sentences as arrays, from `FactTrace.train`.
        rows: int[K, k], which sentences to look at for each query, such as `FactTrace.top(k)`.
        batch_size: sentences per step, where the method passes over all of them.
        **options: of `build_method`, as in `trace_facts`; `key` among them.

    Returns:
        float32[K, k, T].

    Raises:
        InputError: the method's scores do not split, rows do not fit, or `"by-token"` is handed
            the answers alone.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> batch = {"tokens": jnp.ones((3, 4), jnp.int32), "mask": jnp.ones((3, 4), bool)}
        >>> params = jax.jit(module.init)(jax.random.key(0), batch["tokens"])["params"]
        >>> found = proponent_tokens(module, params, "grad-dot", batch, batch, [[0], [1], [2]])
        >>> found.shape
        (3, 1, 4)
    """
    built = build_method(method, module, **options)
    shares = built.shares
    if shares is None:
        raise InputError(f"the scores of {method} do not split over tokens")
    chosen = np.asarray(rows)
    count, total = len(queries["tokens"]), len(train["tokens"])
    if chosen.ndim != 2 or len(chosen) != count or chosen.min() < 0 or chosen.max() >= total:
        raise InputError(
            f"rows are {list(chosen.shape)}: numbers 0 to {total - 1} for each of {count} queries"
        )
    if method in ASKED_WHOLE and _has_gaps(np.asarray(queries["mask"])):
        raise InputError(
            f"{method} asks the whole question, but of these queries only a part counts: pass "
            f"FactTrace.asked({method!r})"
        )
    asked, taught = weigh(built, module, params, queries, train)
    state = shares.prepare(params, asked, Stream(ArraySource(taught), min(batch_size, total)))
    scored = jax.jit(lambda state, batch: shares.score(state, batch)[0])
    found = [
        scored(_of_query(state, query), {name: a[own] for name, a in taught.items()})
        for query, own in enumerate(chosen)
    ]
    return np.stack([np.asarray(one) for one in found])


def shades(scores: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "... T"]:
    """Scores of tokens as shades in [−1, 1]: 1 is the strongest of its sentence.

    Example:
        >>> shades([0.0, 2.0, -1.0], [False, True, True]).tolist()
        [0.0, 1.0, -0.5]
    """
    found = np.where(np.asarray(mask), np.asarray(scores, np.float64), 0.0)
    most = np.abs(found).max(axis=-1, keepdims=True)
    return found / np.where(most > 0, most, 1)


def _has_gaps(mask: np.ndarray) -> bool:
    """Whether a token behind the first does not count, but a later one does."""
    later = np.maximum.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    return bool(np.any(later[:, 1:] & ~mask[:, 1:]))


def _of_query(state: Any, query: int) -> Any:
    """The state of one query alone."""
    if isinstance(state, NormalisedState):
        return state._replace(inner=_of_query(state.inner, query))
    if isinstance(state, StepState):
        pair = jnp.array([0, query + 1])
        return state._replace(models=jax.tree.map(lambda a: a[pair], state.models))
    if isinstance(state, DirectionState):
        one = lambda a: a[query : query + 1]
        return state._replace(
            directions=jax.tree.map(one, state.directions),
            diagnostics=jax.tree.map(one, state.diagnostics),
        )
    raise InputError(f"{type(state).__name__} holds no directions whose scores could be split")
