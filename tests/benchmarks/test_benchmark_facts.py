import json

import numpy as np
import pytest

from benchmarks import facts_programs as programs
from benchmarks.facts import COMBINED, FIRST, FORWARD, FUSION, FUSIONS, figures, summary
from benchmarks.facts_data import Fact, draw_facts, ends_in_object, fill, load_facts
from benchmarks.facts_methods import BM25, KINDS, Store, score, scores
from benchmarks.facts_model import QUICK, answered_right, train_subject
from benchmarks.tables_facts import facts_table
from jaxinf.applications.language import build_method, causal_lm_loss, token_scores
from jaxinf.influence import grad_cos, grad_dot, influence_function
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.loss import scoring_loss

PATTERNS = {
    "P1": ["[X] lies in [Y].", "[X] is a town of [Y].", "[Y] has [X].", "The state of [X] is [Y]."],
    "P2": ["[X] speaks [Y].", "[Y] is the tongue of [X].", "The tongue of [X] is [Y]."],
}
FACTS = [Fact(relation, f"S{i}", f"O{i % 7}") for i in range(40) for relation in PATTERNS]


@pytest.mark.parametrize("part", ["report", "development"])
def test_facts_are_asked_in_words_that_they_were_not_taught_in(part):
    drawn = draw_facts(FACTS, PATTERNS, 0, part, 20, 2)
    assert len(drawn.prompts) == 20
    assert np.bincount(drawn.facts).max() == 2
    for number, (prompt, answer) in enumerate(zip(drawn.prompts, drawn.answers, strict=True)):
        own = {drawn.sentences[i] for i in np.flatnonzero(drawn.facts == number)}
        assert f"{prompt} {answer}." not in own
    for sentence, number, (first, last) in zip(
        drawn.sentences, drawn.facts, drawn.objects, strict=True
    ):
        assert sentence[first:last] == drawn.answers[number]


def test_parts_share_no_subject():
    subjects = [
        set(draw_facts(FACTS, PATTERNS, 0, part, 80, 2).subjects)
        for part in ("report", "development")
    ]
    assert all(subjects)
    assert not subjects[0] & subjects[1]


def test_patterns():
    assert ends_in_object("[X] lies in [Y].")
    assert not ends_in_object("[Y] has [X].")
    assert fill("[Y] has [X].", FACTS[0]) == ("O0 has S0.", (0, 2))


def test_the_real_facts_load(shared_data):
    facts, patterns = load_facts(shared_data)
    assert len(facts) > 10_000
    assert "P1001" not in patterns
    assert min(map(len, patterns.values())) >= 3


def test_the_first_proponent_and_the_first_ten_count():
    assert figures(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, False]])) == (0.5, 1.0)


def test_tables_say_what_was_found():
    names = [*KINDS, *(f"BM25 + {c}, {f}" for c in COMBINED for f in FUSIONS)]
    per_seed = [{name: [0.5 + 0.01 * seed, 0.25, 1.0] for name in names} for seed in range(2)]
    del per_seed[1]["TRAK"]  # the second seed ran without it
    hidden = "BM25 + hidden states, mean"
    for way in FUSIONS:  # one seed alone, where all is better: paired, nothing is gained
        del per_seed[0][f"{hidden}, {way}"]
    found = summary(per_seed)
    assert found["methods"][0]["method"] == BM25
    pair = next(d for d in found["differences"] if d["better"] == f"BM25 + {FORWARD}, {FUSION}")
    assert pair["mrr"]["estimate"] == 0
    about = dict.fromkeys(
        ("sentences", "queries", "several", "right", "fitted", "parameters"), 1.0
    ) | {"seed": 0}
    document = {
        "settings": {"size": {"facts": 3}, "fusion": FUSION},
        "results": {
            "subjects": [about, about | {"seed": 1}],
            "per_seed": per_seed,
            **found,
        },
    }
    page = facts_table(json.loads(json.dumps(document)))
    assert f"| {BM25} | words alone | 0.505 (" in page
    assert f"| {FORWARD} | {' | '.join(['+0.0 / +0.0'] * len(FUSIONS))} |" in page
    same = " | ".join(["+0.0 / +0.0"] * len(FUSIONS))
    assert f"| hidden states, mean (1 seeds) | {same} |" in page
    assert (
        "| TRAK (1 of the seeds) | gradients of training sentences | 0.500 (0.500–0.500) |" in page
    )


def test_seeds_of_the_second_choice_alone_are_compared_apart():
    old = {name: [0.5, 0.5, 1.0] for name in (FIRST, FORWARD, BM25)}
    new = {FORWARD: [0.75, 0.5, 1.0], BM25: [0.5, 0.25, 1.0]}
    found = [row for row in summary([old, new])["differences"] if row["than"] == BM25]
    ours = {row.get("is_new", False): row for row in found if row["better"] == FORWARD}
    assert (ours[False]["seeds"], ours[False]["mrr"]["estimate"]) == (2, 0.125)
    assert (ours[True]["seeds"], ours[True]["mrr"]["estimate"]) == (1, 0.25)
    assert not any("is_new" in row for row in summary([new, new])["differences"])


def test_what_is_kept_is_computed_once(tmp_path):
    calls = []
    compute = lambda: calls.append(1) or np.arange(3.0)
    for _ in range(2):
        np.testing.assert_array_equal(Store(tmp_path / "seed").keep("a", compute), [0, 1, 2])
    assert len(calls) == 1
    Store().keep("a", compute)
    assert len(calls) == 2


@pytest.mark.slow
def test_a_model_is_taught_the_facts_and_every_row_is_scored():
    drawn = draw_facts(FACTS, PATTERNS, 0, "report", 12, 2)
    size = QUICK._replace(
        facts=12, sentences=24, queries=4, epochs=40, batch_size=8, learning_rate=1e-2, length=28,
        width=32,
    )  # fmt: skip
    subject = train_subject(drawn, size, 0)
    assert subject.fitted < 2.5
    assert subject.relevant.shape == (4, len(subject.train["tokens"]))
    assert subject.relevant.any(axis=1).all()
    right = answered_right(subject.module, subject.params, subject.queries)
    assert right.dtype == bool
    assert len(subject.words[2]) == 4
    found = dict(scores(subject, 16, Store()))
    assert list(found) == list(KINDS)
    assert all(np.isfinite(values).all() for values in found.values())
    assert {values.shape for values in found.values()} == {subject.relevant.shape}
    # gradients of tokens give the forward derivatives that the library takes
    directions = programs.gradients(subject, programs.mean(subject.queries))
    train = programs.ones(subject.train)
    summed = causal_lm_loss(subject.module, reduction="sum")
    method = grad_dot(summed, scorer="jvp")
    state = DirectionState(scoring_loss(summed), subject.params, directions, {})
    np.testing.assert_allclose(
        programs.shares(subject, directions, train),
        token_scores(method, summed, state, train),
        atol=1e-4,
    )
    # the shared programs give what the library's attributors give, but for a factor per question,
    # or per sentence where the norm is an estimate
    unit = lambda a, axis: a / np.linalg.norm(a, axis=axis, keepdims=True)
    loss = causal_lm_loss(subject.module)
    cosines = score(subject, grad_cos(loss), subject.train, subject.queries)
    np.testing.assert_allclose(unit(found["grad-cos"], 1), unit(cosines, 1), atol=1e-3)
    curved = influence_function(
        loss, solver="ekfac", curvature="fisher", damping=0.1, damping_unit="mean_eigenvalue",
        scorer="gradients",
    )  # fmt: skip
    inner = score(subject, curved, subject.train, subject.queries)
    np.testing.assert_allclose(unit(found["preconditioned"], 0), unit(inner, 0), atol=1e-3)
    best = build_method("best-token", subject.module, damping=0.1, num_probes=800).attributor
    expected = score(subject, best, subject.train, subject.queries)
    own = found["by token, preconditioned: best token"]
    assert np.corrcoef(own.ravel(), expected.ravel())[0, 1] > 0.95
