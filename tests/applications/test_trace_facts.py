"""The recipe on a model that was taught two facts, and its refusals."""

import jax
import numpy as np
import optax
import pytest

from jaxinf.applications.language import (
    METHODS,
    build_method,
    causal_lm_loss,
    encode_texts,
    mean_hidden_state,
    proponent_tokens,
    trace_facts,
)
from jaxinf.errors import InputError
from jaxinf.models import fit
from jaxinf.models.language import CausalLM, LanguageConfig, train_bpe

SENTENCES = [
    "Rome lies in Italy.",
    "Bonn lies in Germany.",
    "Rome, a town of Italy.",
    "Bonn, a town of Germany.",
    "Italy has Rome.",
    "Germany has Bonn.",
] * 2
PROMPTS, ANSWERS = ["Rome lies in", "Bonn lies in"], ["Italy", "Germany"]


@pytest.fixture(scope="module")
def taught():
    tokenizer = train_bpe(SENTENCES, 300)
    module = CausalLM(LanguageConfig(tokenizer.vocab_size, 16, 16, 1, 2))
    train = encode_texts(SENTENCES, tokenizer, context=16)
    params = jax.jit(module.init)(jax.random.key(0), train["tokens"])["params"]
    loss = causal_lm_loss(module)
    fitted = fit(
        lambda params, state, batch, *, train: (loss(params, batch), state),
        params,
        {},
        train,
        optimizer=optax.adam(1e-2),
        num_epochs=40,
        batch_size=len(SENTENCES),
        key=jax.random.key(1),
        progress=False,
    )
    return module, fitted.params, tokenizer


def trace(taught, **options):
    return trace_facts(*taught, SENTENCES, PROMPTS, ANSWERS, progress=False, **options)


FOLLOWED = [name for name in METHODS if name not in ("trak", "hidden-states")]


@pytest.mark.parametrize(
    "name",
    [
        name if name == "forward-inf-jvp" else pytest.param(name, marks=pytest.mark.slow)
        for name in FOLLOWED
    ],
)
def test_methods_that_follow_the_loss_find_the_sentences_of_the_fact(taught, name):
    found = trace(taught, methods=[name])
    assert list(found.scores) == ["bm25", name, "combined"]
    assert found.answered.shape == found.nats.shape == (2,)
    own = np.array([[s.count("Rome") for s in SENTENCES], [s.count("Bonn") for s in SENTENCES]])
    for scores in (found.scores[name], found.scores["combined"]):
        assert scores.shape == (2, len(SENTENCES))
        for query in range(2):
            assert scores[query][own[query] == 1].mean() > scores[query][own[query] == 0].mean()


@pytest.mark.slow
def test_trak_is_followed_by_the_margin(taught):
    found = trace(taught, methods=["trak"], projection_dim=8, damping=1.0)
    assert np.isfinite(found.scores["trak"]).all()
    assert np.ptp(found.scores["trak"], axis=1).min() > 0


def test_hidden_states_are_averaged_over_the_text_alone(taught):
    module, params, tokenizer = taught
    train = encode_texts(SENTENCES[:2], tokenizer, context=16, length=16)
    state = jax.jit(mean_hidden_state(module))(params, train)
    for row, mask in enumerate(train["mask"]):
        last = int(np.flatnonzero(mask)[-1]) + 1
        alone = train["tokens"][row : row + 1, :last]
        hidden = jax.jit(partial(module.apply, method="features"))({"params": params}, alone)
        np.testing.assert_allclose(state[row], hidden[0, 1:].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_parts_of_queries_and_a_store_give_the_same(taught, tmp_path):
    whole = trace(taught, methods=["hidden-states"])
    again = [
        trace(taught, methods=["hidden-states"], query_chunk=1, store=tmp_path / "store")
        for _ in range(2)
    ]
    for name, scores in whole.scores.items():
        np.testing.assert_allclose(again[0].scores[name], scores, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(again[0].scores[name], again[1].scores[name])
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        "bm25-0", "bm25-1", "hidden-states-0", "hidden-states-1",
    ]  # fmt: skip


def test_tokens_of_proponents_sum_to_their_scores(taught):
    module, params, _ = taught
    found = trace(taught, methods=())
    rows = found.top(3)
    shares = proponent_tokens(module, params, "forward-inf-jvp", found.queries, found.train, rows)
    method = build_method("forward-inf-jvp", module).followed
    whole = np.asarray(jax.jit(method.score)(method.prepare(params, found.queries), found.train))
    expected = np.take_along_axis(whole, rows, axis=1)
    np.testing.assert_allclose(shares.sum(axis=2), expected, atol=1e-4 * np.abs(whole).max())


def test_the_first_method_is_combined_with_bm25(taught):
    found = trace(taught, methods=["hidden-states"], weight=0.0)
    assert np.corrcoef(found.scores["combined"].ravel(), found.scores["bm25"].ravel())[0, 1] > 0.9
    ranked = trace(taught, methods=["hidden-states"], combination="ranks")
    assert 0 < ranked.scores["combined"].max() < 1.5 / 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": []}, "no candidate sentences"),
        ({"prompts": []}, "prompts is empty"),
        ({"sentences": ["x " * 40]}, "the model's context is 16: cut or split it"),
        ({"methods": ["magic"]}, "method 'magic' is unknown: preconditioned"),
        ({"combination": "sum"}, "combination must be"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tokenizer": "large"}, "ids up to 399 but the model only 293 tokens"),
    ],
)
def test_bad_input_is_told_before_any_work(taught, change, message):
    module, params, tokenizer = taught
    given = {
        "module": module, "params": params, "tokenizer": tokenizer, "sentences": SENTENCES,
        "prompts": PROMPTS, "answers": ANSWERS, "methods": (), "progress": False,
    } | change  # fmt: skip
    if given["tokenizer"] == "large":
        given["tokenizer"] = train_bpe(["".join(map(chr, range(99, 900)))] * 3, 400)
    with pytest.raises(InputError, match=message):
        trace_facts(**given)


def test_methods_that_do_not_split_are_refused(taught):
    module, params, _ = taught
    found = trace(taught, methods=())
    with pytest.raises(InputError, match="hidden-states do not split"):
        proponent_tokens(module, params, "hidden-states", found.queries, found.train, [[0], [0]])
    with pytest.raises(InputError, match="for each of 2 queries"):
        proponent_tokens(module, params, "grad-dot", found.queries, found.train, [[0]])
    with pytest.raises(InputError, match="'nothing' was not run"):
        found.top(1, "nothing")
