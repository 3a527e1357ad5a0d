"""The small language model that `benchmarks.facts` asks: trained on sentences that state facts."""

import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks.facts_data import FactSet
from jaxinf.applications.language import (
    causal_lm_loss,
    encode_answers,
    encode_texts,
)
from jaxinf.influence import word_ids
from jaxinf.models import fit, load_checkpoints
from jaxinf.models.language import CausalLM, LanguageConfig, TextTokenizer, train_bpe


class Size(NamedTuple):
    """How large everything is.

    Attributes:
        facts: in training.
        per_fact: training sentences of each, at most.
        queries: facts that are asked for.
        vocab_size: of the byte-pair tokenizer.
        width: of the model.
        layers: of the model.
        epochs: of training.
        batch_size: of training.
        length: tokens per sentence; longer ones are left out.
        checkpoints: kept of the training run, evenly spaced.
        learning_rate: at its highest.
        weight_decay: of AdamW.
    """

    facts: int = 1500
    per_fact: int = 4
    queries: int = 100
    vocab_size: int = 4096
    width: int = 256
    layers: int = 3
    epochs: int = 40
    batch_size: int = 128
    length: int = 20
    checkpoints: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.1


QUICK = Size(
    facts=40, queries=6, vocab_size=300, width=32, layers=2, epochs=4, batch_size=32, length=96,
    checkpoints=2,
)  # fmt: skip


class Subject(NamedTuple):
    """A trained model, what it was trained on, and what it is asked.

    Attributes:
        module: the model.
        params: after training.
        stages: parameters at several times of training, stacked.
        squares: Adam's running mean of squared gradients, like `params`.
        loss_fn: mean nats of the tokens that count.
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
    stages: Any
    squares: Any
    loss_fn: Any
    train: dict[str, np.ndarray]
    objects: dict[str, np.ndarray]
    queries: dict[str, np.ndarray]
    asked: dict[str, np.ndarray]
    words: tuple[np.ndarray, np.ndarray, np.ndarray]
    relevant: np.ndarray
    right: float
    fitted: float
    several: float


def part_of(subject: Subject, names: Sequence[str]) -> Subject:
    """The same subject, whose parameters are those of some modules alone."""
    pick = lambda params: {name: params[name] for name in names}
    held = {name: p for name, p in subject.params.items() if name not in names}
    return subject._replace(
        params=pick(subject.params),
        squares=pick(subject.squares),
        loss_fn=Partial(_with_held, held, subject.loss_fn),
    )


def _with_held(held: Any, loss_fn: Any, params: Any, batch: Any) -> jax.Array:
    return loss_fn({**held, **params}, batch)


def train_subject(drawn: FactSet, size: Size, seed: int, *, progress: bool = False) -> Subject:
    """Train a tokenizer and a GPT-2-shaped model, and choose what to ask."""
    tokenizer = train_bpe(drawn.sentences, size.vocab_size)
    drawn, asked = _fitting(drawn, tokenizer, size.length)
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
    loss_fn = causal_lm_loss(module)
    params, squares, stages = _train(module, loss_fn, train, size, seed, progress)
    right = answered_right(module, params, queries)
    chosen, several = _choose(drawn, asked, right, size.queries, seed)
    rows = np.searchsorted(asked, chosen)
    words = word_ids(
        drawn.sentences,
        [prompts[i] for i in rows],
        [f"{prompts[i]} {answers[i]}" for i in rows],
    )
    take = lambda batch: {name: array[rows] for name, array in batch.items()}
    losses = [
        jax.jit(loss_fn)(params, {name: a[i : i + 512] for name, a in train.items()})
        for i in range(0, len(drawn.sentences), 512)
    ]
    return Subject(
        module, params, stages, squares, loss_fn, train, objects, take(queries), take(texts),
        (words[0], words[1], words[2]), drawn.facts[None] == chosen[:, None],
        float(np.mean(right)), float(np.mean(np.concatenate(losses))), several,
    )  # fmt: skip


def answered_right(module: CausalLM, params: Any, queries: dict[str, np.ndarray]) -> np.ndarray:
    """bool[K]: is every token of the answer the likeliest one after those before it?"""

    @jax.jit
    def right(batch: dict[str, jax.Array]) -> jax.Array:
        logits = module.apply({"params": params}, batch["tokens"])
        said = jnp.argmax(logits[:, :-1], axis=-1) == batch["tokens"][:, 1:]
        return jnp.all(said | ~batch["mask"][:, 1:], axis=1)

    count = len(queries["tokens"])
    parts = [
        np.asarray(right({name: array[i : i + 512] for name, array in queries.items()}))
        for i in range(0, count, 512)
    ]
    return np.concatenate(parts)


def _fitting(drawn: FactSet, tokenizer: TextTokenizer, length: int) -> tuple[FactSet, np.ndarray]:
    """Leave out sentences and questions that are too long; which facts can be asked for."""
    fits = lambda texts: np.array([len(ids) + 2 <= length for ids in tokenizer.encode(texts)])
    kept = np.flatnonzero(fits(drawn.sentences))
    whole = [f"{p} {a}." for p, a in zip(drawn.prompts, drawn.answers, strict=True)]
    taught = np.bincount(drawn.facts[kept], minlength=len(whole)) >= 2
    drawn = drawn._replace(
        sentences=[drawn.sentences[i] for i in kept],
        facts=drawn.facts[kept],
        objects=[drawn.objects[i] for i in kept],
    )
    return drawn, np.flatnonzero(fits(whole) & taught)


def _train(
    module: CausalLM, loss_fn: Any, train: dict[str, np.ndarray], size: Size, seed: int,
    progress: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    init, run = jax.random.split(jax.random.key(seed))
    params = jax.jit(module.init)(init, train["tokens"][:1])["params"]
    steps = size.epochs * (len(train["tokens"]) // size.batch_size)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, size.learning_rate, steps // 20, steps, size.learning_rate / 10
    )
    stateful = lambda params, state, batch, *, train: (loss_fn(params, batch), state)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            stateful, params, {}, train,
            optimizer=optax.adamw(rate, weight_decay=size.weight_decay, b2=0.98),
            num_epochs=size.epochs, batch_size=size.batch_size, key=run, checkpoints=folder,
            checkpoint_every=max(1, size.epochs // size.checkpoints), progress=progress,
        )  # fmt: skip
        stages, _ = load_checkpoints(folder, like=fitted.params)
    adam = next(s for s in fitted.opt_state if isinstance(s, optax.ScaleByAdamState))
    return fitted.params, adam.nu, jax.tree.map(jnp.asarray, stages)


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
