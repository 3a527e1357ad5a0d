"""BM25: lexical retrieval, the baseline that gradients have to beat on text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxinf.errors import InputError
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.passes import only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.typing import Batch, Params, PyTree


class Bm25State(NamedTuple):
    """The queries' terms.

    Attributes:
        terms: int[V], sorted; the rest of it repeats the largest number that the dtype holds.
        weights: float[K, V], how often each query holds each term times its inverse document
            frequency.
        mean_length: tokens per training text.
    """

    terms: Int[jax.Array, " V"]
    weights: Float[jax.Array, "K V"]
    mean_length: Float[jax.Array, ""]


def bm25(
    tokens: Callable[[Batch], jax.Array] = lambda batch: batch,
    *,
    k1: float = 1.5,
    b: float = 0.75,
    padding: int = -1,
) -> Attributor:
    """Okapi BM25 of every training text for every query text, over token ids.

    `Σ_t c_t(q) · idf_t · f_t(z) (k1 + 1) / (f_t(z) + k1 (1 − b + b |z| / mean |z|))` over the
    query's terms t, with f their counts in z and `idf_t = log(1 + (N − n_t + ½) / (n_t + ½))`, n_t
    the number of training texts that hold t.

    Sign: higher = more alike; ≥ 0. Nothing here knows of a model: params are not looked at.

    Cost: no forward pass; B · T look-ups and a [K, V] × [V, B] product per batch, V the number of
    tokens in all queries.

    Args:
        tokens: `batch -> int[B, T]`, such as `lambda batch: batch["tokens"]`. `word_ids` makes
            them from strings.
        k1: how soon repetitions stop counting, ≥ 0.
        b: how much long texts are held back, 0 to 1.
        padding: the id that is no token.

    Returns:
        An `Attributor` without a loss: call it with `params=()`. Its `prepare` needs the training
        set. A group's terms are the mean over its texts.

    Raises:
        InputError: for settings out of range; in `prepare`, no training set to pass over, or
            tokens that are not int[B, T].

    Example:
        >>> from jaxinf.influence import attribute
        >>> train, query = word_ids(["a red cat", "a dog", "the red red sun"], ["red dog"])
        >>> found = attribute(bm25(), (), query, train, progress=False)
        >>> [round(float(score), 2) for score in found.scores[0]]
        [0.47, 1.15, 0.61]

    Reference: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009;
    the inverse document frequency that is never negative is Lucene's.
    """
    if not (0 <= k1 < float("inf") and 0 <= b <= 1):
        raise InputError(f"k1 is {k1} and b is {b}: k1 must be at least 0, b in 0 to 1")

    def read(batch: Batch) -> jax.Array:
        found = jnp.asarray(tokens(batch))
        if found.ndim != 2 or not jnp.issubdtype(found.dtype, jnp.integer):
            raise InputError(
                f"tokens are {found.dtype}{list(found.shape)}: int[B, T] is needed; word_ids makes "
                "them from strings"
            )
        return found

    def counts(terms: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """How often each text holds each term, float[B, V], and tokens per text, float[B]."""
        found = read(batch)
        place = jnp.clip(jnp.searchsorted(terms, found), 0, terms.size - 1)
        real = found != padding
        known = real & (terms[place] == found)
        rows = jnp.broadcast_to(jnp.arange(found.shape[0])[:, None], found.shape)
        held = jnp.zeros((found.shape[0], terms.size)).at[rows, place].add(known)
        return held, jnp.sum(real, axis=1).astype(held.dtype)

    @jax.jit
    def statistics(terms: jax.Array, batch: Batch, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        held, lengths = counts(terms, batch)
        return jnp.sum((held > 0) * mask[:, None], axis=0), jnp.sum(lengths * mask)

    @jax.jit
    def asked_for(groups: QueryGroups) -> tuple[jax.Array, jax.Array]:
        """The queries' terms, and how often each query holds them."""
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), groups.examples)
        asked = read(flat)
        # padding is moved behind every token, where nothing is looked up
        last = jnp.iinfo(asked.dtype).max
        terms = jnp.unique(
            jnp.where(asked == padding, last, asked), size=asked.size, fill_value=last
        )
        held = counts(terms, flat)[0].reshape(*groups.weights.shape, -1)
        return terms, jnp.einsum("kn,knv->kv", groups.weights, held)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> Bm25State:
        groups = as_groups(queries)
        terms, of_queries = asked_for(groups)
        if only_shapes(train, queries):
            return Bm25State(terms, of_queries, jnp.ones(()))
        rows = training_rows(train, "bm25")
        holding, length = rows.total(lambda batch, mask: statistics(terms, batch, mask))
        rarity = jnp.log1p((rows.count - holding + 0.5) / (holding + 0.5))
        return Bm25State(terms, of_queries * rarity[None], length / rows.count)

    def score(state: Bm25State, batch: PyTree) -> jax.Array:
        held, lengths = counts(state.terms, batch)
        mean = jnp.maximum(state.mean_length, jnp.finfo(held.dtype).tiny)
        slack = k1 * (1 - b + b * lengths / mean)[:, None]
        # a text without the term has no say, whatever k1
        saturated = jnp.where(held > 0, held * (k1 + 1) / jnp.where(held > 0, held + slack, 1), 0)
        return jnp.matmul(state.weights, saturated.T, precision="highest")

    name = f"bm25(k1={k1:g}, b={b:g}, padding={padding})"
    return Attributor(prepare, score, None, None, lambda k: 0.0, name)


def word_ids(*collections: Sequence[str], padding: int = -1) -> list[Int[np.ndarray, "N T"]]:
    """Texts to padded rows of word numbers, one vocabulary and one length for all collections.

    Args:
        *collections: sequences of texts, such as training texts and queries.
        padding: the id that fills short rows.

    Returns:
        int32[N, T] for each collection; words are runs of letters and digits, in lower case.

    Raises:
        InputError: for what is no string.

    Example:
        >>> word_ids(["A red cat"], ["red", "A dog!"])
        [array([[0, 1, 2]], dtype=int32), array([[ 1, -1, -1],
               [ 0,  3, -1]], dtype=int32)]
    """
    from jaxinf.datasets.words import split_words

    number: dict[str, int] = {}
    numbered: list[list[list[int]]] = []
    for texts in collections:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError("word_ids takes sequences of strings, one sequence per collection")
        numbered.append(
            [[number.setdefault(word, len(number)) for word in split_words(t)] for t in texts]
        )
    width = max((len(row) for rows in numbered for row in rows), default=0)
    found = [np.full((len(rows), max(width, 1)), padding, np.int32) for rows in numbered]
    for rows, into in zip(numbered, found, strict=True):
        for row, line in zip(rows, into, strict=True):
            line[: len(row)] = row
    return found
