"""Leaks decided at a false-discovery rate: nulls with a known answer, planted ones, bad input."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxinf.applications.leakage import (
    LeakStatistics,
    bulk_p_values,
    conformal_p_values,
    decide_leaks,
    find_leaks,
    leak_statistics,
    relative_to_reference,
    score_queries,
)
from jaxinf.datasets import load_digits, plant_kinds
from jaxinf.errors import InputError
from jaxinf.influence import (
    perceptual_hashes,
    representation_similarity,
    signature_match,
)


def gaussian(count, width, seed):
    return np.random.default_rng(seed).normal(size=(count, width))


def test_statistics_against_the_formula():
    scores = gaussian(7, 12, 0)
    ordered = -np.sort(-scores, axis=1)
    centre = ordered[:, 6]  # the lower median of 12
    for rest in (2, 4):
        found = leak_statistics(scores, rest=rest)
        runner_up = ordered[:, rest - 1]
        np.testing.assert_allclose(
            found.statistic, (ordered[:, 0] - runner_up) / (runner_up - centre), rtol=1e-12
        )
        gap = leak_statistics(scores, statistic="gap", rest=rest)
        np.testing.assert_allclose(gap.statistic, ordered[:, 0] - runner_up, rtol=1e-12)
        np.testing.assert_array_equal(found.source, scores.argmax(axis=1))
        np.testing.assert_array_equal(found.score, scores.max(axis=1))
    np.testing.assert_array_equal(
        leak_statistics(scores, statistic="top").statistic, scores.max(axis=1)
    )
    # neither shift nor scale of a query's scores matters
    moved = scores * np.linspace(1, 1e3, 7)[:, None] + np.linspace(-5, 5, 7)[:, None]
    np.testing.assert_allclose(
        leak_statistics(moved).statistic, leak_statistics(scores).statistic, rtol=1e-9
    )


def test_ratio_of_squared_distances():
    distances = np.array([[4.0, 1.0, 9.0, 2.0], [5.0, 0.0, 3.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    assert leak_statistics(-distances, statistic="ratio").statistic.tolist() == [2, np.inf, 1]
    rounded = leak_statistics(1e-7 - distances[1:2], statistic="ratio")
    assert (rounded.statistic[0], rounded.source[0]) == (np.inf, 1)


def test_unsigned_statistics_find_opposition_and_keep_its_sign():
    scores = gaussian(3, 30, 1)
    scores[1, 4] = -50.0
    found = leak_statistics(scores, signed=False)
    assert (found.source[1], found.score[1]) == (4, -50.0)
    assert found.statistic[1] > 10 > leak_statistics(scores).statistic[1]


def test_ties_and_a_lone_candidate():
    doubled = np.array([[9.0, 9.0, 1.0, 0.0, 2.0]])
    assert leak_statistics(doubled).statistic[0] == 0
    assert leak_statistics(doubled, rest=3).statistic[0] > 0
    assert leak_statistics([[0.0, 0.0, 7.0, 0.0]]).statistic[0] == np.inf
    assert leak_statistics([[0.0, 0.0, 0.0, 0.0]]).statistic[0] == 0
    own = np.array([[-np.inf, 1.0, 5.0, 2.0]])  # itself is no candidate
    found = leak_statistics(own, signed=False)
    assert (found.source[0], found.score[0]) == (2, 5.0)


def test_a_stream_gives_the_same_numbers_as_all_at_once():
    scores, null = gaussian(40, 25, 2), gaussian(60, 25, 3)
    scores[::5, 3] += 30
    whole = find_leaks(scores, null_scores=null, fdr=0.2)
    assert whole.is_leak.sum() >= 8
    chunks = (scores[i : i + 7] for i in range(0, 40, 7))
    parts = find_leaks(chunks, null_scores=[null[:1], null[1:]], fdr=0.2)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    gathered = [leak_statistics(part) for part in (scores[:11], scores[11:])]
    along = LeakStatistics(*(np.concatenate(column) for column in zip(*gathered, strict=True)))
    np.testing.assert_array_equal(
        decide_leaks(along, leak_statistics(null), fdr=0.2).q_values, whole.q_values
    )


def test_q_values_are_those_of_scipy_and_of_the_definition():
    scores, null = gaussian(50, 20, 4), gaussian(99, 20, 5)
    scores[:10, 0] += 8
    found = find_leaks(scores, null_scores=null, fdr=0.1)
    p = conformal_p_values(leak_statistics(scores).statistic, leak_statistics(null).statistic)
    np.testing.assert_array_equal(found.p_values, p)
    np.testing.assert_allclose(found.q_values, stats.false_discovery_control(p), rtol=1e-12)
    # step-up by hand: the largest k with p_(k) <= k fdr / m
    order = np.sort(p)
    passing = np.flatnonzero(order <= np.arange(1, 51) * 0.1 / 50 * (1 + 1e-12))
    called = p <= order[passing[-1]] if passing.size else np.zeros(50, bool)
    np.testing.assert_array_equal(found.is_leak, called)
    assert called.sum() >= 10


def test_conformal_p_values_by_hand():
    rng = np.random.default_rng(0)
    null, values = rng.integers(0, 9, 30), rng.integers(0, 9, 12)
    expected = [(1 + np.sum(null >= v)) / 31 for v in values]
    np.testing.assert_allclose(conformal_p_values(values, null), expected)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_false_discoveries_stay_below_the_rate_and_planted_leaks_are_found(share):
    """400 draws from a null with heavy tails, 200 queries each, 10 % asked for."""
    fdr, count, num_clean = 0.1, 200, 1999
    num_leaks = int(share * count)
    rng = np.random.default_rng(7)
    false, power = [], []
    for _ in range(400):
        null, values = rng.standard_cauchy(num_clean), rng.standard_cauchy(count)
        values[:num_leaks] = 1e6
        as_statistics = lambda v: LeakStatistics(v, np.zeros(len(v), int), v)
        called = decide_leaks(as_statistics(values), as_statistics(null), fdr=fdr).is_leak
        false.append(called[num_leaks:].sum() / max(1, called.sum()))
        power.append(called[:num_leaks].mean() if num_leaks else 1.0)
    error = np.std(false) / np.sqrt(len(false))
    assert np.mean(false) <= fdr * (1 - share) + 3 * error
    assert np.mean(false) >= fdr * (1 - share) / 3  # the level is used, not only kept
    if num_leaks:
        assert np.mean(power) > 0.95


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_bulk_holds_the_rate_where_its_assumption_does(share):
    fdr, count = 0.1, 400
    num_leaks = int(share * count)
    rng = np.random.default_rng(8)
    for draw in (rng.exponential, rng.normal):
        false, power = [], []
        for _ in range(150):
            values = draw(size=count)
            values[:num_leaks] += 40
            called = stats.false_discovery_control(bulk_p_values(values)) <= fdr
            false.append(called[num_leaks:].sum() / max(1, called.sum()))
            power.append(called[:num_leaks].mean() if num_leaks else 1.0)
        assert np.mean(false) <= fdr + 3 * np.std(false) / np.sqrt(len(false))
        assert np.mean(power) > 0.95


def test_bulk_p_values_of_an_exponential_are_its_tail():
    values = stats.expon.ppf((np.arange(4001) + 0.5) / 4001)
    p = bulk_p_values(values)
    upper = values > np.log(2)
    np.testing.assert_allclose(p[upper], np.exp(-values[upper]), rtol=0.05)


def test_relative_scores_need_no_gradient_norms():
    rng = np.random.default_rng(0)
    directions, reference = rng.normal(size=(5, 30)), rng.normal(size=(400, 30))
    gradients = rng.normal(size=(50, 30)) * np.exp(3 * rng.normal(size=(50, 1)))
    found = relative_to_reference(directions @ gradients.T, reference @ gradients.T)
    cosines = (directions @ gradients.T) / np.linalg.norm(gradients, axis=1)
    for row, exact in zip(found, cosines, strict=True):
        assert stats.pearsonr(row, exact)[0] > 0.99


def test_copies_of_digits_are_found_by_pixels_and_hashes():
    train, test = load_digits(seed=0)
    train = {key: value[:400] for key, value in train.items()}
    planted = plant_kinds(train, test, 8, 0, kinds=("exact", "relabelled"), num_classes=10)
    x, source = planted.examples["x"], planted.source
    pixels = representation_similarity(lambda _, batch: batch, metric="euclidean")
    queries, clean = np.concatenate([x[:60], x[360:]]), x[60:360]
    options = {"batch_size": 400, "progress": False}
    scores = lambda rows: score_queries(pixels, (), rows, train["x"], query_chunk=128, **options)
    found = find_leaks(scores(queries), null_scores=scores(clean), fdr=0.1, statistic="top")
    np.testing.assert_array_equal(found.is_leak[60:], True)
    np.testing.assert_array_equal(found.source[60:], source[360:])
    assert found.is_leak[:60].sum() <= 4
    pytest.importorskip("imagehash")
    as_bytes = lambda x: (255 * x).astype(np.uint8)
    hashes = perceptual_hashes(as_bytes(np.asarray(train["x"])))
    match = score_queries(
        signature_match(), (), perceptual_hashes(as_bytes(x[360:])), hashes, **options
    )
    assert (np.concatenate(list(match)).max(axis=1) == 1).all()


def test_scores_of_a_stream_resume_from_their_store(tmp_path):
    x = gaussian(12, 4, 0).astype(np.float32)
    pixels = representation_similarity(lambda _, batch: batch)
    options = {"query_chunk": 5, "store": tmp_path, "batch_size": 12, "progress": False}
    stream = score_queries(pixels, (), x[:9], x, **options)
    first = next(stream)  # and then the run is killed
    assert [p.name for p in tmp_path.iterdir()] == ["queries-00000000"]
    again = list(score_queries(pixels, (), x[:9], x, **options))
    np.testing.assert_array_equal(again[0], first)
    assert [len(chunk) for chunk in again] == [5, 4]
    with pytest.raises(InputError, match="belongs to another run"):
        list(score_queries(pixels, (), x[1:9], x, **options))


def test_a_stream_of_query_batches_is_scored_as_the_array_is():
    x = gaussian(12, 4, 0).astype(np.float32)
    method = representation_similarity(lambda _, batch: batch["x"])
    run = lambda queries: score_queries(
        method, (), queries, {"x": x}, query_chunk=4, batch_size=12, progress=False
    )
    read = []

    def batches():
        for rows in (x[:1], x[1:9], x[9:9], x[9:]):  # of any sizes, and none
            read.append(len(rows))
            yield {"x": rows}

    stream = run(batches())
    first = next(stream)
    assert read == [1, 8]  # no further than the chunk needs
    found = [first, *stream]
    assert [len(chunk) for chunk in found] == [4, 4, 4]
    expected = np.concatenate(list(run({"x": x})))
    np.testing.assert_array_equal(np.concatenate(found), expected)


SCORES, CLEAN = gaussian(30, 10, 0), gaussian(40, 10, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_leaks(SCORES, null_scores=CLEAN, fdr=0.0), "fdr is 0.0"),
        (lambda: find_leaks(SCORES, null_scores=CLEAN, fdr=1.0), "fdr is 1.0"),
        (lambda: find_leaks(SCORES, fdr=float("nan")), "fdr is nan"),
        (lambda: find_leaks(SCORES[:0]), r"shape \(0, 10\)"),
        (lambda: find_leaks(iter([])), "no scores"),
        (lambda: find_leaks([]), "no scores"),
        (lambda: find_leaks(SCORES[:, :0]), "one row per query"),
        (lambda: find_leaks(SCORES[:, :2]), "2 training examples: .* at least 3"),
        (lambda: find_leaks(SCORES, null_scores=CLEAN[:0]), "no clean calibration queries"),
        (lambda: find_leaks(SCORES, null_scores=CLEAN[:10]), "at least 19 are needed"),
        (lambda: find_leaks(SCORES, null_scores=CLEAN[:, 1:]), "10 wide and null_scores 9"),
        (lambda: find_leaks([SCORES, CLEAN[:, 1:]]), "chunks of scores are 10 and 9 wide"),
        (lambda: find_leaks(SCORES[:5]), "5 queries are too few"),
        (lambda: find_leaks(np.zeros((30, 10))), "no spread"),
        (lambda: find_leaks(np.where(SCORES > 2, np.nan, SCORES)), "NaN"),
        (lambda: find_leaks(np.where(SCORES > 2, np.inf, SCORES)), "infinities"),
        (lambda: find_leaks(np.full((30, 10), -np.inf)), "fewer than 2 candidates"),
        (lambda: find_leaks(SCORES, rest=1), "rest is 1"),
        (lambda: find_leaks(SCORES, statistic="max"), "statistic is 'max'"),
        (lambda: find_leaks(SCORES, statistic="ratio"), "minus squared distances, which are not"),
        (lambda: find_leaks(SCORES, statistic="ratio", signed=False), "no other sign"),
        (lambda: relative_to_reference(SCORES, CLEAN[:, 1:]), "reference 9 wide"),
        (lambda: relative_to_reference(SCORES, CLEAN, floor=0), "floor is 0"),
        (
            lambda: next(score_queries(signature_match(), (), iter([]), np.zeros((4, 2), int))),
            "ended without a query",
        ),
        (
            lambda: list(
                score_queries(signature_match(), (), np.zeros((2, 3), int), np.zeros((4, 2), int))
            ),
            "queries",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_how_few_leaks_can_be_called():
    found = find_leaks(SCORES, null_scores=CLEAN)
    assert found.num_calibration == 40
    assert found.fewest == 15  # 30 / (41 x 0.05)
    assert find_leaks(SCORES).fewest == 1
