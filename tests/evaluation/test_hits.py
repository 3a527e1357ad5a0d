import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from jaxinf.errors import InputError
from jaxinf.evaluation import (
    hit_rate,
    mean_reciprocal_rank,
    ranks,
    recall_at_k,
    top_k_indices,
    top_k_overlap,
)

SCORES = np.array([[0.1, 0.9, 0.5, 0.5], [0.7, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_ranks_by_hand_with_ties_going_to_the_lower_index():
    np.testing.assert_array_equal(ranks(SCORES, [2, 0, 3]), [2, 1, 4])
    np.testing.assert_array_equal(ranks(SCORES, [3, 3, 0]), [3, 4, 1])


def test_rank_is_the_place_in_the_sorted_order():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (20, 30)).astype(np.float32)
    source = rng.integers(0, 30, 20)
    order = top_k_indices(scores, 30)
    places = np.argmax(order == source[:, None], axis=1) + 1
    np.testing.assert_array_equal(ranks(scores, source), places)


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 2 / 3), (4, 1.0)])
def test_hit_rate_by_hand(k, expected):
    assert hit_rate(SCORES, [2, 0, 3], k) == pytest.approx(expected)


def test_hit_rate_of_a_random_ranking_is_k_over_n():
    rng = np.random.default_rng(1)
    rate = hit_rate(rng.normal(size=(4000, 50)), rng.integers(0, 50, 4000), k=5)
    assert rate == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 4000))


@pytest.mark.parametrize("k", [1, 3, 7, 30])
def test_top_k_is_the_head_of_a_stable_sort(k):
    scores = np.random.default_rng(1).integers(0, 4, (25, 30)).astype(float)
    scores[0] = np.inf
    scores[1] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(top_k_indices(scores, k), expected)


def test_infinite_scores_have_ranks():
    np.testing.assert_array_equal(ranks([[-np.inf, 1.0, np.inf]], [0]), [3])


def test_unsigned_scores_rank_like_any_other():
    np.testing.assert_array_equal(top_k_indices(np.array([[1, 0, 2]], np.uint8), 3), [[2, 0, 1]])


def test_mean_reciprocal_rank_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    scores, source = rng.normal(size=(40, 12)), rng.integers(0, 12, 40)
    # with one relevant item per query, label ranking average precision is the reciprocal rank
    expected = label_ranking_average_precision_score(np.eye(12)[source], scores)
    assert mean_reciprocal_rank(scores, source) == pytest.approx(expected)


def test_recall_by_hand_and_against_hit_rate():
    relevant = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    np.testing.assert_allclose(recall_at_k(SCORES, relevant, 2), [2 / 3, 0, 1])
    source = np.array([2, 0, 3])
    one_each = np.eye(4, dtype=bool)[source]
    assert recall_at_k(SCORES, one_each, 3).mean() == hit_rate(SCORES, source, 3)


def test_top_k_overlap():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(3, 10))
    np.testing.assert_array_equal(top_k_overlap(a, 2 * a + 1, 4), 1)
    np.testing.assert_array_equal(top_k_overlap(a, -a, 5), 0)
    np.testing.assert_array_equal(top_k_overlap(a, -a, 10), 1)
    np.testing.assert_allclose(top_k_overlap([[4, 3, 2, 1]], [[4, 1, 3, 2]], 2), [0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranks(np.zeros(3), [0]), "one row per query"),
        (lambda: ranks(np.zeros((0, 3)), []), "one row per query"),
        (lambda: ranks([[np.nan, 1.0]], [0]), "1 NaN"),
        (lambda: ranks([["a", "b"]], [0]), "not real numbers"),
        (lambda: ranks(SCORES, [0, 1]), "one row number per query"),
        (lambda: ranks(SCORES, [0.0, 1.0, 2.0]), "one row number per query"),
        (lambda: ranks(SCORES, [0, -1, 2]), r"source\[1\] is -1"),
        (lambda: ranks(SCORES, [0, 1, 4]), r"source\[2\] is 4"),
        (lambda: hit_rate(SCORES, [0, 0, 0], 0), "k is 0"),
        (lambda: hit_rate(SCORES, [0, 0, 0], 5), "k is 5"),
        (lambda: top_k_indices(SCORES, 5), "k is 5"),
        (lambda: recall_at_k(SCORES, np.zeros((3, 4)), 1), "bool mask"),
        (lambda: recall_at_k(SCORES, np.ones((3, 3), bool), 1), r"\(3, 4\) and \(3, 3\)"),
        (lambda: recall_at_k(SCORES, np.eye(3, 4, -1, dtype=bool), 1), "query 0 has no"),
        (lambda: top_k_overlap(SCORES, SCORES[:2], 1), r"\(3, 4\) and \(2, 4\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
