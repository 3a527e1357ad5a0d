"""Which words of the sentences found carry their influence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.applications.language.losses import causal_lm_loss
from jaxinf.applications.language.methods import TextMethod, build_method
from jaxinf.applications.language.parts import token_scores
from jaxinf.engine import Stream
from jaxinf.engine.sources import ArraySource
from jaxinf.errors import InputError
from jaxinf.influence.forward_inf import DirectionState, StepState
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
    """Shares of the tokens of each query's own proponents in their scores.

    Normalisation is left out: it divides all tokens of a sentence by one number.

    Sign: positive = being taught to predict this token here makes the answer likelier. The sum
    over T is the sentence's score before it is normalised.

    Args:
        module: a `CausalLM`.
        params: its parameters.
        method: one of `build_method` whose scores are changes of a loss; of `"grad-cos"`, those
            of the product of gradients.
        queries: K questions as arrays, from `FactTrace.queries`.
        train: N sentences as arrays, from `FactTrace.train`.
        rows: int[K, k], which sentences to look at for each query, such as `FactTrace.top(k)`.
        batch_size: sentences per step, where the method passes over all of them.
        **options: of `build_method`.

    Returns:
        float32[K, k, T].

    Raises:
        InputError: the method's scores do not split, or rows do not fit.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig
        >>> module = CausalLM(LanguageConfig(11, 8, 8, 1, 2))
        >>> batch = {"tokens": jnp.ones((3, 4), jnp.int32), "mask": jnp.ones((3, 4), bool)}
        >>> params = jax.jit(module.init)(jax.random.key(0), batch["tokens"])["params"]
        >>> found = proponent_tokens(module, params, "grad-dot", batch, batch, [[0], [1], [2]])
        >>> found.shape
        (3, 1, 4)
    """
    attributor = build_method(method, module, **options).followed
    if attributor is None:
        raise InputError(f"the scores of {method} do not split over tokens")
    chosen = np.asarray(rows)
    count, total = len(queries["tokens"]), len(train["tokens"])
    if chosen.ndim != 2 or len(chosen) != count or chosen.min() < 0 or chosen.max() >= total:
        raise InputError(
            f"rows are {list(chosen.shape)}: numbers 0 to {total - 1} for each of {count} queries"
        )
    loss = causal_lm_loss(module)
    state = attributor.prepare(params, queries, Stream(ArraySource(train), min(batch_size, total)))
    scored = jax.jit(lambda state, batch: token_scores(attributor, loss, state, batch)[0])
    found = [
        scored(_of_query(state, query), {name: a[own] for name, a in train.items()})
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


def _of_query(state: Any, query: int) -> Any:
    """The state of one query alone."""
    if isinstance(state, StepState):
        pair = jnp.array([0, query + 1])
        return state._replace(models=jax.tree.map(lambda a: a[pair], state.models))
    if isinstance(state, DirectionState):
        one = lambda a: a[query : query + 1]
        return state._replace(directions=jax.tree.map(one, state.directions))
    raise InputError(f"{type(state).__name__} holds no directions whose scores could be split")
