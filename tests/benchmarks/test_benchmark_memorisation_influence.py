"""`benchmarks.memorisation_influence`: pairs of made-up models, and how a ranking is judged."""

import numpy as np
import pytest

from benchmarks.memorisation_influence import correlations, find_pairs, judge
from benchmarks.tables_memorisation_influence import memorisation_influence_table
from jaxinf.applications.memorisation import RetrainedOutputs


def made_up(models=400, train=12, test=6, seed=0):
    """Test example 3 is right by training example 5 alone, which is right only when trained on."""
    rng = np.random.default_rng(seed)
    subsets = rng.random((models, train)) < 0.7
    correct = np.ones((models, train), bool)
    correct[:, 5] = subsets[:, 5]
    test_correct = rng.random((models, test)) < 0.5
    test_correct[:, 3] = subsets[:, 5]
    return RetrainedOutputs(subsets, correct, correct.astype(np.float32), test_correct)


def test_the_planted_pair_is_the_only_one():
    pairs = find_pairs(made_up())
    assert pairs.tests.tolist() == [3]
    assert np.flatnonzero(pairs.relevant[0]).tolist() == [5]
    assert pairs.memorised == 1
    assert pairs.reliability[0] > 0.9


def test_rankings_are_judged_by_hand():
    pairs = find_pairs(made_up())
    second = np.zeros((1, 12))
    second[0, [2, 5]] = 2.0, 1.0
    found = judge(second, pairs)
    assert found["mrr"]["estimate"] == 0.5
    assert found["recall_at_1"]["estimate"] == 0.0
    assert found["recall_at_10"]["estimate"] == 1.0
    assert found["auc"]["estimate"] == pytest.approx(10 / 11)
    assert found["precision"] == 0.0
    assert judge(pairs.scores[pairs.tests], pairs)["pearson"]["estimate"] == pytest.approx(1.0)


def test_without_a_certain_pair_it_says_so():
    found = made_up()
    lost = RetrainedOutputs(
        found.subsets, found.correct, found.probability, ~found.correct[:, :6] & False
    )
    with pytest.raises(SystemExit, match="no pair is beyond 4 standard errors"):
        find_pairs(lost)


def test_correlations_are_by_row():
    a = np.array([[1.0, 2.0, 3.0], [1.0, 0.0, 1.0]])
    np.testing.assert_allclose(correlations(a, a * [[2.0], [-1.0]]), [1.0, -1.0])
    np.testing.assert_array_equal(correlations(a, np.ones((2, 3))), [0.0, 0.0])


def test_the_table_has_the_best_first_and_names_early_models():
    pairs = find_pairs(made_up())
    rows = [
        {"method": name, "kind": "passes", "models": 2, "training": training}
        | {"training_seconds": 5.0, "scoring_seconds": 3.0}
        | judge(scores, pairs)
        for name, training, scores in (
            ("worse", 2.0, -pairs.scores[pairs.tests]),
            ("better", 0.4, pairs.scores[pairs.tests]),
        )
    ]
    found = {
        "size": {"train": 12},
        "memorised": 1,
        "truth_models": 400,
        "truth_training": 280.0,
        "truth_seconds": 500.0,
        "pairs": 1,
        "tests": 1,
        "reliability": {"estimate": 0.93, "low": 0.9, "high": 0.95},
        "rows": rows,
    }
    lines = memorisation_influence_table({"results": {"mnist": found}}).splitlines()
    assert "0.93 (0.90–0.95)" in lines[0]
    assert lines[4] == (
        "| better, early models | passes | 2 | 0.4 | 5.0 | 3.0 | 1.00 | 1.00 | 1.00 | 1.00 | "
        "1.00 | 1.00 |"
    )
    assert lines[5].startswith("| worse | passes | 2 | 2 | 5.0 | 3.0 | 0.00 |")
