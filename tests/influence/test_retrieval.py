"""The baselines that know nothing of gradients: BM25, signatures, and neighbours' votes."""

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.evaluation import top_k_indices
from jaxinf.influence import (
    content_hashes,
    group_queries,
    knn_attribution,
    minhash_signatures,
    perceptual_hashes,
    signature_match,
)
from jaxinf.influence.bm25 import bm25, word_ids

WORDS = ["sun", "moon", "star", "sky", "sea", "tree", "leaf", "root"]


def make_texts(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


def okapi(query, texts, k1, b):
    """One query against all texts, a term at a time."""
    split = [Counter(text.split()) for text in texts]
    mean = sum(sum(c.values()) for c in split) / len(texts)
    scores = []
    for counts in split:
        total = 0.0
        for term in query.split():
            holding = sum(term in other for other in split)
            rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            slack = k1 * (1 - b + b * sum(counts.values()) / mean)
            if counts[term]:
                total += rarity * counts[term] * (k1 + 1) / (counts[term] + slack)
        scores.append(total)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_bm25_is_the_formula_a_term_at_a_time(k1, b):
    texts, asked = make_texts(29, 0), [*make_texts(3, 1), "sun sun nowhere", "elsewhere"]
    train, queries = word_ids(texts, asked)
    found = attribute(bm25(k1=k1, b=b), (), queries, train, batch_size=8, progress=False)
    expected = np.array([okapi(query, texts, k1, b) for query in asked])
    assert np.abs(found.scores - expected).max() < 1e-5
    assert (found.scores[4] == 0).all()


def test_bm25_with_top_k_and_groups():
    train, queries = word_ids(make_texts(29, 0), make_texts(4, 1))
    whole = attribute(bm25(), (), queries, train, progress=False).scores
    top = attribute(bm25(), (), queries, train, top_k=3, batch_size=8, progress=False)
    best = np.take_along_axis(whole, top_k_indices(whole, 3), axis=1)
    np.testing.assert_allclose(top.top_scores, best, rtol=1e-6)
    groups = group_queries(queries, np.array([0, 0, 1, 1]))
    found = attribute(bm25(), (), groups, train, progress=False).scores
    np.testing.assert_allclose(found, whole.reshape(2, 2, -1).mean(axis=1), rtol=1e-5)


def test_bm25_of_tokens_with_a_padding_of_their_own():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (12, 6)).astype(np.int32)
    tokens[3:, 4:] = 0
    longer = np.pad(tokens, ((0, 0), (0, 5)))
    make = lambda t: {"tokens": t, "other": np.zeros(len(t), np.float32)}
    method = bm25(lambda batch: batch["tokens"], padding=0)
    run = lambda t: attribute(method, (), make(t[:2]), make(t), progress=False).scores
    np.testing.assert_allclose(run(longer), run(tokens), rtol=1e-6)


def test_content_hashes_see_every_leaf_and_every_bit():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(6, 3)).astype(np.float32), "y": np.arange(6)}
    data = jax.tree.map(lambda a: np.concatenate([a, a[:2]]), data)
    data["x"][7, 0] = np.nextafter(data["x"][7, 0], np.float32(9))
    rows = content_hashes(data)
    found = attribute(signature_match(), (), rows[:2], rows, progress=False).scores
    expected = np.eye(2, 8)
    expected[0, 6] = 1
    np.testing.assert_array_equal(found, expected)
    assert not (content_hashes(data | {"y": data["y"] + 1}) == rows).any()


def test_perceptual_hashes_are_near_for_a_changed_image_and_far_for_another():
    grid = np.linspace(0, 3, 32)
    wave = lambda a, b: 127 + 120 * np.sin(a * grid[:, None]) * np.cos(b * grid[None])
    first, second = wave(3, 2).astype(np.uint8), wave(1, 5).astype(np.uint8)
    brighter = np.clip(first * 0.8 + 30, 0, 255).astype(np.uint8)
    rows = perceptual_hashes(np.stack([first, brighter, second]))
    found = attribute(signature_match(), (), rows[:1], rows, progress=False).scores[0]
    assert found[0] == 1
    assert found[1] > 0.9
    assert found[2] < 0.75
    colour = np.repeat(first[None, :, :, None], 3, axis=3)
    assert (perceptual_hashes(colour) == rows[:1]).mean() > 0.9


def test_minhash_estimates_the_jaccard_similarity():
    rng = np.random.default_rng(0)
    base = [f"w{i}" for i in range(60)]
    texts = [" ".join(base)]
    for changed in (5, 20, 60):
        words = list(base)
        for place in rng.permutation(60)[:changed]:
            words[place] = f"v{place}"
        texts.append(" ".join(words))
    pairs = [set(itertools.pairwise(text.split())) for text in texts]
    exact = np.array([len(pairs[0] & p) / len(pairs[0] | p) for p in pairs])
    rows = minhash_signatures(texts, num_hashes=2000, shingle=2)
    found = attribute(signature_match(), (), rows[:1], rows, progress=False).scores[0]
    assert found[0] == 1
    # four standard errors at most
    assert np.abs(found - exact).max() < 4 * 0.5 / np.sqrt(2000)


def test_a_group_matches_as_its_members_do_on_average():
    rows = content_hashes(["a", "b", "c"])
    found = attribute(signature_match(), (), group_queries(rows[:2]), rows, progress=False)
    np.testing.assert_allclose(found.scores, [[0.5, 0.5, 0.0]])


def shapley(near, match, num_classes):
    """By every order in which the players can come."""
    players = range(len(near))
    worth = lambda chosen: (
        np.mean([match[i] for i in chosen if near[i]])
        if any(near[i] for i in chosen)
        else 1 / num_classes
    )
    values = np.zeros(len(near))
    for order in itertools.permutations(players):
        for place, player in enumerate(order):
            values[player] += worth(order[: place + 1]) - worth(order[:place])
    return values / math.factorial(len(near))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_values_are_shapleys_by_enumeration(metric):
    rng = np.random.default_rng(0)
    train = {"x": rng.normal(size=(6, 3)).astype(np.float32), "y": rng.integers(0, 3, 6)}
    queries = {"x": rng.normal(size=(3, 3)).astype(np.float32), "y": np.arange(3)}
    method = knn_attribution(
        lambda params, batch: batch["x"], num_classes=3, num_neighbours=4, metric=metric
    )
    found = attribute(method, (), queries, train, batch_size=8, progress=False)
    q, z = queries["x"], train["x"]
    if metric == "cosine":
        q, z = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, z))
    order = np.argsort(((q[:, None] - z[None]) ** 2).sum(2), axis=1)
    for k in range(3):
        near = np.isin(np.arange(6), order[k, :4])
        match = train["y"] == queries["y"][k]
        np.testing.assert_allclose(found.scores[k], shapley(near, match, 3), atol=1e-6)
    np.testing.assert_allclose(
        found.scores.sum(axis=1), found.diagnostics["matching"] - 1 / 3, atol=1e-6
    )


def test_neighbours_do_not_depend_on_blocks_and_count_ties():
    rng = np.random.default_rng(1)
    train = {"x": np.repeat(rng.normal(size=(9, 4)), 3, axis=0).astype(np.float32)}
    train["y"] = rng.integers(0, 2, 27)
    queries = jax.tree.map(lambda a: a[::9], train)
    method = knn_attribution(
        lambda params, batch: batch["x"], num_classes=2, num_neighbours=4, metric="euclidean"
    )
    states = [method.prepare((), queries, Stream(as_source(train), size)) for size in (4, 27)]
    scores = [np.asarray(method.score(state, train)) for state in states]
    assert relative(*scores) < 1e-6
    # the fourth is one of three at one distance
    np.testing.assert_array_equal(states[0].held, [6.0, 6.0, 6.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bm25(k1=-1.0), "k1 must be at least 0"),
        (lambda: bm25(b=2.0), "b in 0 to 1"),
        (lambda: bm25().prepare((), jnp.zeros((2, 3))), r"tokens are float32\[2, 3\]"),
        (lambda: bm25().prepare((), jnp.zeros((2, 3), int)), "bm25 passes over the training set"),
        (lambda: word_ids("one text"), "takes sequences of strings"),
        (lambda: signature_match().prepare((), jnp.zeros((2, 3))), "signatures are float32"),
        (lambda: perceptual_hashes(np.zeros((2, 8, 8, 4), np.uint8)), "uint8.N, H, W, 3"),
        (lambda: minhash_signatures("text"), "takes a sequence of strings"),
        (lambda: minhash_signatures(["text"], shingle=0), "at least 1 each"),
        (lambda: knn_attribution(lambda p, b: b, num_classes=1), "at least 2 and 1"),
        (lambda: knn_attribution(lambda p, b: b, num_classes=2, metric="dot"), "metric must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_more_neighbours_than_examples_and_groups_are_refused():
    data = {"x": np.eye(3, dtype=np.float32), "y": np.arange(3)}
    method = knn_attribution(lambda p, b: b["x"], num_classes=3, num_neighbours=3)
    with pytest.raises(InputError, match="there are only 3 training examples"):
        attribute(method, (), data, data, progress=False)
    with pytest.raises(InputError, match="single queries, not groups"):
        attribute(method, (), group_queries(data), data, progress=False)
