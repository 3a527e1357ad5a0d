"""The small language model that `benchmarks.facts` asks: trained on sentences that state facts."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks.facts_data import FactSet
from jaxinf.applications.language import causal_lm_loss, encode_answers, encode_texts
from jaxinf.influence import word_ids
from jaxinf.models.language import CausalLM, LanguageConfig, TextTokenizer, train_bpe


class Size(NamedTuple):
    """How large everything is.

    Attributes:
        facts: in training.
        per_fact: training sentences of each, at most.
        sentences: in training, at most: as many for every seed, so that all share what is compiled.
        queries: facts that are asked for.
        vocab_size: of the byte-pair tokenizer.
        width: of the model.
        layers: of the model.
        epochs: of training.
        batch_size: of training.
        length: tokens per sentence; longer ones are left out.
        learning_rate: at its highest.
        weight_decay: of AdamW.
    """

    facts: int = 1500
    per_fact: int = 4
    sentences: int = 5376
    queries: int = 100
    vocab_size: int = 4096
    width: int = 256
    layers: int = 3
    epochs: int = 40
    batch_size: int = 128
    length: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 0.1


REDUCED = Size(
    facts=600, sentences=2048, queries=50, vocab_size=2048, width=128, layers=2,
    learning_rate=2e-3,
)  # fmt: skip
"""For a CPU: minutes per seed."""
QUICK = Size(
    facts=40, sentences=128, queries=4, vocab_size=300, width=16, layers=1, epochs=2, batch_size=32,
    length=96,
)  # fmt: skip


class Subject(NamedTuple):
    """A trained model, what it was trained on, and what it is asked.

    Attributes:
        module: the model.
        params: after training.
        train: every token of each sentence counts.
        objects: the same sentences; the object's tokens alone count.
        queries: the answer's tokens alone count.
        asked: the queries as texts, every token counts.
        words: word numbers of the sentences, of the prompts, of the prompts with answers.
        relevant: bool[K, N], which sentences state the fact that is asked for.
        right: share of all facts that the model answers right in words it was not taught.
        fitted: mean nats per token of the training sentences.
        several: share of the queries whose subject has several facts in training.
    """

    module: CausalLM
    params: Any
    train: dict[str, np.ndarray]
    objects: dict[str, np.ndarray]
    queries: dict[str, np.ndarray]
    asked: dict[str, np.ndarray]
    words: tuple[np.ndarray, np.ndarray, np.ndarray]
    relevant: np.ndarray
    right: float
    fitted: float
    several: float


def train_subject(drawn: FactSet, size: Size, seed: int) -> Subject:
    """Train a tokenizer and a GPT-2-shaped model, and choose what to ask."""
    tokenizer = train_bpe(drawn.sentences, size.vocab_size)
    drawn, asked = _fitting(drawn, tokenizer, size)
    limits = {"context": size.length, "length": size.length}
    train = encode_texts(drawn.sentences, tokenizer, **limits)
    objects = encode_texts(drawn.sentences, tokenizer, spans=drawn.objects, **limits)
    prompts = [drawn.prompts[i] for i in asked]
    answers = [drawn.answers[i] for i in asked]
    queries = encode_answers(prompts, answers, tokenizer, **limits)
    whole = [f"{p} {a}." for p, a in zip(prompts, answers, strict=True)]
    texts = encode_texts(whole, tokenizer, **limits)
    config = LanguageConfig(
        vocab_size=tokenizer.vocab_size,
        context=size.length,
        width=size.width,
        num_layers=size.layers,
        num_heads=max(1, size.width // 64),
    )
    module = CausalLM(config)
    params, losses = _train(module, size, jax.random.key(seed), train)
    right = answered_right(module, params, queries)
    chosen, several = _choose(drawn, asked, right, size.queries, seed)
    rows = np.searchsorted(asked, chosen)
    words = word_ids(
        drawn.sentences,
        [prompts[i] for i in rows],
        [f"{prompts[i]} {answers[i]}" for i in rows],
    )
    take = lambda batch: {name: array[rows] for name, array in batch.items()}
    return Subject(
        module, params, train, objects, take(queries), take(texts), _even(words, size.length),
        drawn.facts[None] == chosen[:, None], float(np.mean(right)), float(np.mean(losses)),
        several,
    )  # fmt: skip


def _even(words: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one width for every seed; words are no more than tokens."""
    train, prompts, whole = (
        np.pad(a, ((0, 0), (0, max(0, width - a.shape[1]))), constant_values=-1) for a in words
    )
    return train, prompts, whole


def answered_right(module: CausalLM, params: Any, queries: dict[str, np.ndarray]) -> np.ndarray:
    """bool[K]: is every token of the answer the likeliest one after those before it?"""
    # padded, so that every seed runs the same program
    count, block = len(queries["tokens"]), 512
    rows = np.arange(-(-count // block) * block) % count
    parts = [
        np.asarray(
            _right(module, params, {name: a[rows[i : i + block]] for name, a in queries.items()})
        )
        for i in range(0, len(rows), block)
    ]
    return np.concatenate(parts)[:count]


@partial(jax.jit, static_argnums=0)
def _right(module: CausalLM, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    logits = module.apply({"params": params}, batch["tokens"])
    said = jnp.argmax(logits[:, :-1], axis=-1) == batch["tokens"][:, 1:]  # type: ignore[index]
    return jnp.all(said | ~batch["mask"][:, 1:], axis=1)


def _fitting(drawn: FactSet, tokenizer: TextTokenizer, size: Size) -> tuple[FactSet, np.ndarray]:
    """Leave out sentences and questions that are too long; which facts can be asked for."""
    fits = lambda texts: np.array([len(ids) + 2 <= size.length for ids in tokenizer.encode(texts)])
    kept = np.flatnonzero(fits(drawn.sentences))[: size.sentences]
    whole = [f"{p} {a}." for p, a in zip(drawn.prompts, drawn.answers, strict=True)]
    taught = np.bincount(drawn.facts[kept], minlength=len(whole)) >= 2
    drawn = drawn._replace(
        sentences=[drawn.sentences[i] for i in kept],
        facts=drawn.facts[kept],
        objects=[drawn.objects[i] for i in kept],
    )
    return drawn, np.flatnonzero(fits(whole) & taught)


@partial(jax.jit, static_argnums=(0, 1))
def _train(
    module: CausalLM, size: Size, key: jax.Array, train: dict[str, jax.Array]
) -> tuple[Any, jax.Array]:
    """Parameters, and nats of every sentence after training: one program, run once per seed."""
    init, run = jax.random.split(key)
    count = train["tokens"].shape[0]
    steps = count // size.batch_size
    rate = optax.warmup_cosine_decay_schedule(
        0.0, size.learning_rate, size.epochs * steps // 20, size.epochs * steps,
        size.learning_rate / 10,
    )  # fmt: skip
    optimizer = optax.adamw(rate, weight_decay=size.weight_decay, b2=0.98)
    loss_fn = causal_lm_loss(module)

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, state = carry
        batch = {name: array[rows] for name, array in train.items()}
        gradients = jax.grad(lambda at: jnp.mean(loss_fn(at, batch)))(params)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
        order = jax.random.permutation(key, count)[: steps * size.batch_size]
        return lax.scan(step, carry, order.reshape(steps, size.batch_size))

    params = module.init(init, train["tokens"][:1])["params"]
    start = (params, optimizer.init(params))
    params = lax.scan(epoch, start, jax.random.split(run, size.epochs))[0][0]
    alone = lambda row: loss_fn(params, jax.tree.map(lambda a: a[None], row))[0]
    return params, lax.map(alone, train, batch_size=min(256, count))


def _choose(
    drawn: FactSet, asked: np.ndarray, right: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, float]:
    """Facts answered right; first those whose subject has several, which words alone confuse."""
    owners: dict[str, int] = {}
    for subject in drawn.subjects:
        owners[subject] = owners.get(subject, 0) + 1
    order = asked[np.random.default_rng(seed).permutation(len(asked))]
    good = set(asked[right].tolist())
    answered = [i for i in order if i in good] or list(order)
    hard = [i for i in answered if owners[drawn.subjects[i]] > 1]
    chosen = [*hard, *(i for i in answered if owners[drawn.subjects[i]] == 1)][:count]
    return np.sort(np.array(chosen)), min(len(hard), len(chosen)) / len(chosen)
