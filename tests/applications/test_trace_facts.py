"""The recipe on a model that was taught two facts, and its refusals."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf.applications.language import (
    METHODS,
    LanguageWarning,
    build_method,
    causal_lm_loss,
    encode_texts,
    guessing,
    mean_hidden_state,
    proponent_tokens,
    trace_facts,
)
from jaxinf.applications.language.losses import token_nats
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
def untaught():
    tokenizer = train_bpe(SENTENCES, 300)
    module = CausalLM(LanguageConfig(tokenizer.vocab_size, 16, 16, 1, 2))
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
    return module, params, tokenizer


@pytest.fixture(scope="module")
def taught(untaught):
    """While it learns: of what is learned by heart no sentence has anything left to teach."""
    module, params, tokenizer = untaught
    train = encode_texts(SENTENCES, tokenizer, context=16)
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


def trace(model, **options):
    return trace_facts(*model, SENTENCES, PROMPTS, ANSWERS, progress=False, **options)


FOLLOWED = [name for name in METHODS if name in ("by-token", "forward-inf", "grad-cos")]


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLLOWED)
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


def test_hidden_states_are_averaged_over_the_text_alone(untaught):
    module, params, tokenizer = untaught
    train = encode_texts(SENTENCES[:2], tokenizer, context=16, length=16)
    state = jax.jit(mean_hidden_state(module))(params, train)
    for row, mask in enumerate(train["mask"]):
        last = int(np.flatnonzero(mask)[-1]) + 1
        alone = train["tokens"][row : row + 1, :last]
        hidden = jax.jit(partial(module.apply, method="features"))({"params": params}, alone)
        np.testing.assert_allclose(state[row], hidden[0, 1:].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_whitened_states_are_hidden_states_in_the_metric_of_their_covariance(untaught):
    found = trace(untaught, methods=["whitened-states"])
    module, params, _ = untaught
    of = jax.jit(mean_hidden_state(module))
    states, asked = (
        np.asarray(of(params, batch), np.float64)
        for batch in (found.train, found.asked("whitened-states"))
    )
    covariance = np.cov(states.T, bias=True)
    covariance += 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    metric = np.linalg.inv(covariance)
    a, b = asked - states.mean(axis=0), states - states.mean(axis=0)
    lengths = [np.sqrt(np.einsum("ni,ij,nj->n", c, metric, c)) for c in (a, b)]
    np.testing.assert_allclose(
        found.scores["whitened-states"], a @ metric @ b.T / np.outer(*lengths), atol=1e-3
    )


def test_parts_of_queries_and_a_store_give_the_same(untaught, tmp_path):
    whole = trace(untaught, methods=())
    options = {"methods": (), "query_chunk": 1, "store": tmp_path / "store"}
    again = [trace(untaught, **options) for _ in range(2)]
    np.testing.assert_allclose(again[0].scores["bm25"], whole.scores["bm25"], rtol=1e-6)
    np.testing.assert_array_equal(again[0].scores["bm25"], again[1].scores["bm25"])
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["bm25-0", "bm25-1"]


class Tiny(nn.Module):
    """The next token by the mean of those so far: quick to compile, and yet with a context."""

    config: LanguageConfig

    @nn.compact
    def __call__(self, tokens):
        hidden = nn.Embed(self.config.vocab_size, 6, name="table")(tokens)
        so_far = jnp.cumsum(hidden, axis=1) / jnp.arange(1, 1 + tokens.shape[1])[None, :, None]
        return nn.Dense(self.config.vocab_size, name="head")(jnp.tanh(so_far))


@pytest.fixture(scope="module")
def quick(untaught):
    module = Tiny(untaught[0].config)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
    return module, params, untaught[2]


SPLIT = [name for name in METHODS if name != "trak" and not name.endswith("-states")]


@pytest.mark.parametrize("name", SPLIT)
def test_shares_of_tokens_make_up_the_scores(quick, name):
    module, params, _ = quick
    # a step large enough that what it changes is not lost to round-off
    settings = {"key": jax.random.key(3), "num_probes": 4, "learning_rate": 1e-2}
    found = trace(quick, methods=[name], **settings)
    rows = found.top(3, name)
    shares = proponent_tokens(
        module, params, name, found.asked(name), found.train, rows, **settings
    )
    assert shares.shape == (2, 3, found.train["tokens"].shape[1])
    counted = found.train["mask"][rows]
    assert not shares[~counted].any()
    reduction = build_method(name, module).shares.reduction
    assert reduction == ("max" if name == "best-token" else "sum")
    if reduction == "max":
        made = np.where(counted, shares, -np.inf).max(axis=2)
    else:
        made = shares.sum(axis=2)
    scores = found.scores[name]
    expected = np.take_along_axis(scores, rows, axis=1)
    np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(scores).max())


def test_the_whole_question_is_asked_where_the_method_looks_at_it(untaught):
    module, params, tokenizer = untaught
    found = trace(untaught, methods=())
    assert found.asked("best-token") is found.queries
    whole = found.asked("by-token")
    assert (
        tokenizer.decode(whole["tokens"][0][whole["mask"][0]]) == "Rome lies in Italy<|endoftext|>"
    )
    assert tokenizer.decode(found.queries["tokens"][0][found.queries["mask"][0]]) == " Italy"
    with pytest.raises(InputError, match=r"pass FactTrace\.asked\('by-token'\)"):
        proponent_tokens(module, params, "by-token", found.queries, found.train, [[0], [0]])
    with pytest.raises(InputError, match="method 'bm25' is unknown"):
        found.asked("bm25")


def test_a_model_that_does_worse_than_guessing_is_told_of(quick, recwarn):
    module, params, tokenizer = quick
    trace(quick, methods=())
    assert not recwarn.list
    # sure of one token that stands nowhere, as a model is of another tokenizer's
    wrong = params | {"head": params["head"] | {"bias": params["head"]["bias"].at[200].set(9.0)}}
    with pytest.warns(LanguageWarning, match="worse than guessing on the training texts") as told:
        trace_facts(
            module, wrong, tokenizer, SENTENCES, PROMPTS, ANSWERS, methods=(), progress=False
        )
    assert [Path(one.filename) for one in told] == [Path(__file__)]


@pytest.mark.parametrize(("count", "most"), [(11, 64), (11, 4), (1, 64)])
def test_the_mean_loss_is_of_texts_taken_evenly(quick, monkeypatch, count, most):
    module, params, tokenizer = quick
    batch = encode_texts(SENTENCES[:count], tokenizer, context=16, length=16)
    monkeypatch.setattr(guessing, "_TOKENS_AT_ONCE", 3 * 16)  # blocks of 3
    rows = {(11, 64): range(11), (11, 4): [0, 3, 7, 10], (1, 64): [0]}[count, most]
    nats = jax.jit(token_nats(module))(params, {name: a[list(rows)] for name, a in batch.items()})
    expected = float(np.sum(nats)) / batch["mask"][list(rows)].sum()
    assert guessing.mean_nats(module, params, batch, most=most) == pytest.approx(expected, 1e-5)


def test_the_first_method_is_combined_with_bm25(untaught):
    found = trace(untaught, methods=["hidden-states"], weight=0.0, combination="z")
    assert np.corrcoef(found.scores["combined"].ravel(), found.scores["bm25"].ravel())[0, 1] > 0.9
    ranked = trace(untaught, methods=["hidden-states"], combination="ranks")
    assert 0 < ranked.scores["combined"].max() <= 1.25 / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": []}, "no candidate sentences"),
        ({"prompts": []}, "prompts is empty"),
        ({"sentences": ["x " * 40]}, "the model's context is 16: cut or split it"),
        ({"methods": ["magic"]}, "method 'magic' is unknown: by-token"),
        ({"combination": "sum"}, "combination must be"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tokenizer": "large"}, "ids up to 399 but the model only 293 tokens"),
    ],
)
def test_bad_input_is_told_before_any_work(untaught, change, message):
    module, params, tokenizer = untaught
    given = {
        "module": module, "params": params, "tokenizer": tokenizer, "sentences": SENTENCES,
        "prompts": PROMPTS, "answers": ANSWERS, "methods": (), "progress": False,
    } | change  # fmt: skip
    if given["tokenizer"] == "large":
        given["tokenizer"] = train_bpe(["".join(map(chr, range(99, 900)))] * 3, 400)
    with pytest.raises(InputError, match=message):
        trace_facts(**given)


def test_methods_that_do_not_split_are_refused(untaught):
    module, params, _ = untaught
    found = trace(untaught, methods=())
    with pytest.raises(InputError, match="hidden-states do not split"):
        proponent_tokens(module, params, "hidden-states", found.queries, found.train, [[0], [0]])
    with pytest.raises(InputError, match="for each of 2 queries"):
        proponent_tokens(module, params, "grad-dot", found.queries, found.train, [[0]])
    with pytest.raises(InputError, match="'nothing' was not run"):
        found.top(1, "nothing")
