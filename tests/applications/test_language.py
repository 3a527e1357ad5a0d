import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf import attribute
from jaxinf.applications.language import (
    causal_lm_loss,
    encode_answers,
    encode_texts,
    pack,
    same_length,
    segment_losses,
    segment_scores,
    sequence_loss,
    token_scores,
    unpack,
)
from jaxinf.errors import InputError
from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_dot,
    normalise_by_loss,
)
from jaxinf.influence.loss import scoring_loss
from jaxinf.models.language import CausalLM, LanguageConfig, train_bpe

run = jax.jit(lambda loss, params, batch: loss(params, batch))

SENTENCES = [
    "Rome is the capital of Italy.",
    "The capital of France is Paris.",
    "Bonn lies on the Rhine.",
    "A cat.",
    "Paris is in France.",
]
CONTEXT = 48
ROTARY = {"rotary_dim": 4, "gated": True, "activation": "silu", "norm": "rms"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(SENTENCES, 280)


@pytest.fixture(scope="module")
def train(tokenizer):
    return encode_texts(SENTENCES, tokenizer, context=CONTEXT, length=32)


def build(train, **changes):
    module = CausalLM(LanguageConfig(280, CONTEXT, 8, 1, 2, **changes))
    params = jax.jit(module.init)(jax.random.key(0), train["tokens"])["params"]
    return module, jax.tree.map(lambda p: 5 * p if p.ndim > 1 else p, params)


@pytest.fixture(scope="module")
def model(train):
    return build(train)


class Bigrams(nn.Module):
    """The cheapest language model: the next token depends on the last one alone."""

    @nn.compact
    def __call__(self, tokens):
        return nn.Embed(280, 280, name="table")(tokens)


def test_the_loss_is_the_mean_cross_entropy_of_the_tokens_that_count(model, train):
    module, params = model
    logits = jax.jit(module.apply)({"params": params}, train["tokens"])
    logits = np.asarray(logits, np.float64)
    for reduction in ("mean", "sum"):
        found = run(causal_lm_loss(module, reduction=reduction), params, train)
        for row, tokens in enumerate(train["tokens"]):
            nats = [
                np.log(np.exp(logits[row, t - 1]).sum()) - logits[row, t - 1, tokens[t]]
                for t in np.flatnonzero(train["mask"][row])
            ]
            expected = getattr(np, reduction)(nats)
            np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_the_loss_of_a_sure_model_keeps_its_digits():
    params = {"table": {"embedding": 20 * jnp.eye(280)}}  # each token predicts itself
    batch = {"tokens": np.full((1, 3), 7), "mask": np.ones((1, 3), bool)}
    loss = causal_lm_loss(Bigrams())
    found, grads = jax.value_and_grad(lambda p: loss(p, batch)[0])(params)
    rest = 279 * np.exp(-20.0)
    np.testing.assert_allclose(found, np.log1p(rest), rtol=1e-5)
    row = grads["table"]["embedding"][7]
    np.testing.assert_allclose(row[7], -rest / (1 + rest), rtol=1e-5)
    np.testing.assert_allclose(row[:7], np.exp(-20.0) / (1 + rest), rtol=1e-5)


def test_equal_losses_are_compiled_once(model):
    twice = [scoring_loss(causal_lm_loss(CausalLM(model[0].config)), None, "highest") for _ in "ab"]
    assert jax.tree.structure(twice[0]) == jax.tree.structure(twice[1])


def test_padding_changes_nothing(model, train):
    module, params = model
    loss = causal_lm_loss(module)
    short = {name: array[3:4, :6] for name, array in train.items()}
    assert train["mask"][3].sum() <= 5
    other = {
        "tokens": np.where(train["mask"], train["tokens"], 99)[3:4],
        "mask": train["mask"][3:4],
    }
    other["tokens"][0, 0] = train["tokens"][3, 0]
    expected = run(loss, params, short)
    for batch in ({name: a[3:4] for name, a in train.items()}, other):
        np.testing.assert_allclose(run(loss, params, batch), expected, rtol=1e-5)


def test_a_token_out_of_the_vocabulary_gives_nan(model, train):
    module, params = model
    bad = {"tokens": np.full((1, 4), 280), "mask": np.ones((1, 4), bool)}
    assert np.isnan(run(causal_lm_loss(module), params, bad)).all()


@pytest.mark.parametrize(
    ("changes", "reduction"), [({}, "sum"), (ROTARY, "mean")], ids=["learned", "rotary"]
)
def test_packed_losses_are_those_of_single_rows(train, changes, reduction):
    module, params = build(train, **changes)
    packed = pack(train, CONTEXT)
    assert len(packed["tokens"]) < len(SENTENCES)
    loss = causal_lm_loss(module, reduction=reduction)
    alone = np.asarray(run(loss, params, train))
    found = jax.jit(segment_losses, static_argnums=0)(sequence_loss(loss), params, packed)
    np.testing.assert_allclose(unpack(found, packed, len(SENTENCES)), alone, rtol=1e-5)


METHODS = {
    "finite": lambda loss: forward_inf(loss, optimizer=optax.sgd(0.1)),
    "adam": lambda loss: forward_inf(loss, optimizer=optax.adam(1e-2), steps=2),
    "jvp": lambda loss: forward_inf_jvp(loss, scorer="jvp"),
    "dot": lambda loss: grad_dot(loss, scorer="jvp"),
}


@pytest.mark.parametrize(
    "name", ["finite", *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "finite")]
)
def test_parts_sum_to_the_score(model, train, name):
    from jaxinf.engine import Stream, as_source

    module, params = model
    loss = causal_lm_loss(module)
    method = METHODS[name](loss)
    queries = {key: array[:2] for key, array in train.items()}
    state = method.prepare(params, queries, Stream(as_source(train), 5))
    whole = np.asarray(jax.jit(method.score)(state, train))
    scale = np.abs(whole).max()
    parts = jax.jit(lambda state, batch: token_scores(method, loss, state, batch))(state, train)
    assert parts.shape == (2, *train["tokens"].shape)
    np.testing.assert_allclose(parts.sum(axis=2), whole, atol=1e-4 * scale)
    assert not np.asarray(parts)[:, ~train["mask"]].any()
    packed = pack(train, CONTEXT)
    of_segments = jax.jit(lambda state, batch: segment_scores(method, loss, state, batch))
    found = unpack(of_segments(state, packed), packed, len(SENTENCES))
    np.testing.assert_allclose(found, whole, atol=1e-4 * scale)


def test_what_cannot_be_split_is_refused(train):
    module = Bigrams()
    params = {"table": {"embedding": jnp.zeros((280, 280))}}
    loss = causal_lm_loss(module)
    one = {key: array[:1] for key, array in train.items()}
    # refused while tracing: shapes are enough
    refused = lambda method, loss: jax.eval_shape(
        lambda batch: token_scores(method, loss, method.prepare(params, one), batch), train
    )
    with pytest.raises(InputError, match='pass scorer="jvp"'):
        refused(grad_dot(loss, scorer="gradients"), loss)
    with pytest.raises(InputError, match="no change of a loss"):
        refused(normalise_by_loss(grad_dot(loss, scorer="jvp"), loss), loss)
    with pytest.raises(InputError, match="from causal_lm_loss"):
        token_scores(grad_dot(loss), lambda p, b: b, (), train)


def test_answers_and_spans_count_alone(tokenizer):
    batch = encode_answers(["The capital of France is "], [" Paris"], tokenizer, context=CONTEXT)
    counted = tokenizer.decode(batch["tokens"][batch["mask"]])
    assert counted == " Paris"
    span = (SENTENCES[1].index("Paris"), SENTENCES[1].index("Paris") + 5)
    batch = encode_texts([SENTENCES[1]], tokenizer, context=CONTEXT, spans=[span])
    assert tokenizer.decode(batch["tokens"][batch["mask"]]).strip() == "Paris"
    everything = encode_texts([SENTENCES[1]], tokenizer, context=CONTEXT)
    row = everything["tokens"][everything["mask"]]
    assert tokenizer.decode(row) == SENTENCES[1] + "<|endoftext|>"


def test_queries_and_texts_of_one_length_are_scored(tokenizer, train):
    module, params = Bigrams(), {"table": {"embedding": jnp.zeros((280, 280))}}
    queries = encode_answers(["The capital of Italy is"], ["Rome"], tokenizer, context=CONTEXT)
    queries, texts = same_length(queries, train)
    loss = causal_lm_loss(module)
    found = attribute(forward_inf_jvp(loss), params, queries, texts, progress=False)
    assert found.scores.shape == (1, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: encode_texts([], t, context=8), "texts is empty"),
        (lambda t: encode_texts(["a", ""], t, context=8), "text 1 is empty"),
        (lambda t: encode_texts([3], t, context=8), "text 0 is int"),
        (
            lambda t: encode_texts(["a", "x " * 20], t, context=8),
            r"text 1 has \d+ tokens \(one of 1 too long\), but the model's context is 8",
        ),
        (lambda t: encode_texts(["a"], t, context=8, vocab_size=100), "do not belong together"),
        (lambda t: encode_texts(["a"], t, context=8, spans=[]), "1 texts but 0 spans"),
        (lambda t: encode_answers([], [], t, context=8), "prompts is empty"),
        (lambda t: encode_answers(["a"], [], t, context=8), "1 prompts but 0 answers"),
        (lambda t: encode_answers(["a"], [" "], t, context=8), "answer 0 is empty"),
        (lambda t: encode_answers(["x " * 20], ["a"], t, context=8), "the model's context is 8"),
    ],
)
def test_bad_input_is_told_in_one_line(tokenizer, call, message):
    with pytest.raises(InputError, match=message):
        call(tokenizer)


def test_a_sequence_over_the_context_is_refused_by_the_model(model):
    module, params = model
    with pytest.raises(InputError, match="49 tokens, but the model's context is 48"):
        module.apply({"params": params}, jnp.zeros((1, 49), jnp.int32))


def test_truncation_keeps_the_beginning(tokenizer):
    batch = encode_texts(["x " * 20], tokenizer, context=8, truncate=True)
    assert batch["tokens"].shape == (1, 8)


def test_a_sentence_over_the_row_is_refused(train):
    with pytest.raises(InputError, match="but a row only 4"):
        pack(train, 4)
