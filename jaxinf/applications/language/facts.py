"""The recipe: sentences and questions in, the sentences that taught the answers out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxinf.applications.language.arrays import encode_answers, encode_texts, same_length
from jaxinf.applications.language.combine import reciprocal_rank_fusion, sum_of_z_scores
from jaxinf.applications.language.guessing import warn_if_guessing
from jaxinf.applications.language.methods import (
    ASKED_WHOLE,
    METHODS,
    TextMethod,
    build_method,
    weigh,
)
from jaxinf.errors import InputError, check_count
from jaxinf.evaluation import top_k_indices
from jaxinf.influence import Attributor, attribute, bm25, word_ids
from jaxinf.models import cross_entropy
from jaxinf.models.language import TextTokenizer, check_tokenizer
from jaxinf.typing import Batch, Params

Combination = Literal["z", "ranks"]
_DIRECTION_BYTES = 2 << 30


@dataclass(frozen=True)
class FactTrace:
    """What was found.

    Attributes:
        scores: by method, float[K, N]: `"bm25"` first, then those asked for, then `"combined"`.
        answered: bool[K], whether the model itself answers so: each of the answer's tokens is the
            likeliest one. Where it does not, there is no answer to trace.
        nats: float[K], mean loss of the answer's tokens.
        train: the sentences as arrays.
        queries: the questions as arrays, the answer's tokens counting.
        whole: the questions as arrays, all tokens of question and answer counting.
    """

    scores: Mapping[str, Float[np.ndarray, "K N"]]
    answered: Bool[np.ndarray, " K"]
    nats: Float[np.ndarray, " K"]
    train: Batch = field(repr=False)
    queries: Batch = field(repr=False)
    whole: Batch = field(repr=False)

    def asked(self, method: TextMethod) -> Batch:
        """The questions as the method is asked them: `whole`, or `queries`."""
        if method not in METHODS:
            raise InputError(f"method {method!r} is unknown: {', '.join(METHODS)}")
        return self.whole if method in ASKED_WHOLE else self.queries

    def top(self, k: int, method: str = "combined") -> Int[np.ndarray, "K k"]:
        """The k sentences with the highest scores of each query, best first."""
        if method not in self.scores:
            raise InputError(f"method {method!r} was not run: {', '.join(self.scores)}")
        return top_k_indices(self.scores[method], k)


def trace_facts(
    module: Any,
    params: Params,
    tokenizer: TextTokenizer,
    sentences: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    methods: Sequence[TextMethod] = ("by-token",),
    weight: float = 0.25,
    combination: Combination = "ranks",
    batch_size: int = 256,
    query_chunk: int | None = None,
    truncate: bool = False,
    store: str | os.PathLike | None = None,
    progress: bool = True,
    key: jax.Array | None = None,
    **options: Any,
) -> FactTrace:
    """Rank training sentences by what they have to do with the model's answers.

    BM25 over words is always among the methods, and first: where a fact is stated in the words of
    the question it is hard to beat, and it costs nothing. The methods that look at the model are
    each combined with it.

    Sign: positive = a proponent; BM25 and combined scores: higher = nearer the top.

    Args:
        module: a `CausalLM`.
        params: its parameters.
        tokenizer: the one that it was trained with.
        sentences: N training texts.
        prompts: K questions, such as "The capital of France is".
        answers: K answers, such as "Paris".
        methods: of `build_method`; the first one is what is combined with BM25. None at all: BM25
            alone.
        weight: of that method in the combination, BM25's being 1.
        combination: `"ranks"`, reciprocal rank fusion with the constant 1; or `"z"`, the sum of
            z-scores.
        batch_size: sentences per step over all devices.
        query_chunk: questions whose directions are held at once; default what fits in 2 GiB.
        truncate: cut sentences over the context, instead of refusing them.
        store: folder for durable scores: a killed run, called again in the same way, goes on.
        progress: show bars.
        key: for random probes and projections.
        **options: of `build_method`, such as `damping`.

    Returns:
        A `FactTrace`.

    Warns:
        LanguageWarning: on (at most 64 of) the sentences the model does worse than guessing, as
            with another model's tokenizer.

    Raises:
        InputError: no sentences or questions, a text that is empty or over the context, a
            tokenizer that does not fit the model, unknown methods.

    Example:
        >>> from jaxinf.models.language import CausalLM, LanguageConfig, train_bpe
        >>> sentences = ["Rome is in Italy.", "Bonn is in Germany."]
        >>> tokenizer = train_bpe(sentences, 257)
        >>> module = CausalLM(LanguageConfig(tokenizer.vocab_size, 32, 8, 1, 2))
        >>> params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
        >>> found = trace_facts(module, params, tokenizer, sentences, ["Rome lies in"], ["Italy"],
        ...     methods=(), progress=False)
        >>> found.top(1).tolist()
        [[0]]
    """
    if combination not in ("z", "ranks"):
        raise InputError(f"combination must be 'z' or 'ranks', not {combination!r}")
    if not len(sentences):
        raise InputError("no candidate sentences: pass the texts that the model was trained on")
    check_count(batch_size, "batch_size")
    built = {name: build_method(name, module, key=key, **options) for name in methods}
    config = module.config
    check_tokenizer(tokenizer, config.vocab_size)
    limits = {"context": config.context}
    train = encode_texts(sentences, tokenizer, truncate=truncate, **limits)
    queries = encode_answers(prompts, answers, tokenizer, **limits)
    whole = [f"{p.rstrip()} {a.lstrip()}" for p, a in zip(prompts, answers, strict=True)]
    texts = encode_texts(whole, tokenizer, truncate=True, **limits)
    train, queries, texts = same_length(train, queries, texts)
    warn_if_guessing(module, params, train, config.vocab_size)
    folder = None if store is None else Path(store)
    run = _Runner(batch_size, query_chunk, folder, progress)

    train_words, query_words = word_ids(sentences, whole)
    scores = {"bm25": run("bm25", _words_alone(), (), query_words, train_words)}
    for name, method in built.items():
        looked_at = texts if name in ASKED_WHOLE else queries
        asked, taught = weigh(method, module, params, looked_at, train)
        scores[name] = run(name, method.attributor, params, asked, taught)
    first = [scores["bm25"], *(scores[name] for name in list(methods)[:1])]
    fuse = sum_of_z_scores if combination == "z" else partial(reciprocal_rank_fusion, constant=1.0)
    scores["combined"] = fuse(first, weights=[1.0, weight][: len(first)])
    answered, nats = answers_of(module, params, queries)
    return FactTrace(scores, answered, nats, train, queries, texts)


def answers_of(
    module: Any, params: Params, queries: Batch
) -> tuple[Bool[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Whether every token that counts is the likeliest one, and their mean loss in nats.

    Args:
        module: as in `causal_lm_loss`.
        params: its parameters.
        queries: `tokens` and `mask`, [K, T].
    """
    count, size = len(queries["tokens"]), 64
    rows = np.arange(-(-count // size) * size) % count if count > size else np.arange(count)
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    take = lambda block: {name: a[block] for name, a in queries.items()}
    parts = [_said(module, params, take(block)) for block in blocks]
    answered, nats = (
        np.concatenate([np.asarray(p) for p in part]) for part in zip(*parts, strict=True)
    )
    return answered[:count], nats[:count]


@partial(jax.jit, static_argnums=0)
def _said(module: Any, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    logits = module.apply({"params": params}, batch["tokens"])[:, :-1]
    targets, mask = batch["tokens"][:, 1:], batch["mask"][:, 1:]
    nats = cross_entropy(logits, {"y": targets})
    likeliest = jnp.argmax(logits, axis=-1) == targets
    mean = jnp.sum(nats, axis=1, where=mask) / jnp.maximum(jnp.sum(mask, axis=1), 1)
    return jnp.all(likeliest | ~mask, axis=1), mean


@cache
def _words_alone() -> Attributor:
    """One for all calls, which then share what was compiled."""
    return bm25()


@dataclass(frozen=True)
class _Runner:
    """`attribute` on some queries at a time, so that their directions fit in memory."""

    batch_size: int
    query_chunk: int | None
    store: Path | None
    progress: bool

    def __call__(
        self, name: str, attributor: Any, params: Params, queries: Any, train: Any
    ) -> np.ndarray:
        count = len(jax.tree.leaves(queries)[0])
        size = min(count, self.query_chunk or _fitting(params))
        parts = []
        for begin in range(0, count, size):
            # parts of one size, so that one program serves them all
            rows = np.arange(begin, begin + size) % count
            found = attribute(
                attributor,
                params,
                jax.tree.map(lambda a, rows=rows: a[rows], queries),
                train,
                batch_size=self.batch_size,
                store=None if self.store is None else self.store / f"{name}-{begin}",
                progress=self.progress,
                diagnostics=False,
            )
            assert found.scores is not None
            parts.append(found.scores[: count - begin])
        return np.concatenate(parts)


def _fitting(params: Params) -> int:
    leaves = jax.tree.leaves(params)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return max(1, _DIRECTION_BYTES // held) if held else 1 << 30
