import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from jaxinf.errors import InputError
from jaxinf.evaluation.intervals import clopper_pearson
from jaxinf.evaluation.roc import (
    RocWarning,
    roc_auc,
    tpr_at_fpr,
    why_no_rate,
)
from jaxinf.evaluation.thresholds import (
    calibrated_accuracy,
    oracle_accuracy,
    roc_curve,
    threshold_at_fpr,
)

FPRS = (0.01, 0.1, 0.25, 1.0)


def sample(levels, n=1500, seed=0):
    """Scores with many ties (few levels) or hardly any."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = rng.normal(size=n) + labels
    return np.round(scores * levels).astype(np.float32), labels


def sklearn_tpr(scores, labels, fpr):
    rates, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    return tpr[rates <= fpr].max()


@pytest.mark.parametrize("levels", [1, 7, 1e6])
def test_auc_and_rates_equal_scikit_learns_with_ties(levels):
    scores, labels = sample(levels)
    assert float(roc_auc(scores, labels)) == pytest.approx(metrics.roc_auc_score(labels, scores))
    expected = [sklearn_tpr(scores, labels, fpr) for fpr in FPRS]
    np.testing.assert_allclose(tpr_at_fpr(scores, labels, FPRS), expected, rtol=1e-6)


def test_rates_at_the_edge_of_a_count():
    # 10 of 1000 negatives are above exactly half of the positives
    scores = np.concatenate([np.arange(1000), np.full(50, 989.5), np.full(50, 10.0)])
    labels = np.arange(1100) >= 1000
    assert float(tpr_at_fpr(scores, labels, 0.01)) == 0.5
    scores[0] = 990  # an eleventh
    with pytest.warns(RocWarning, match="under 10"):
        assert np.isnan(tpr_at_fpr(scores, labels, 0.0099))
    assert float(tpr_at_fpr(scores, labels, 0.01)) == 0


def test_jit_and_vmap():
    several = [sample(7, seed=seed) for seed in range(3)]
    scores, labels = np.stack([s for s, _ in several]), np.stack([y for _, y in several])
    auc = jax.jit(jax.vmap(roc_auc))(scores, labels)
    expected = [metrics.roc_auc_score(y, s) for s, y in several]
    np.testing.assert_allclose(auc, expected, rtol=1e-6)
    tpr = jax.jit(jax.vmap(lambda s, y: tpr_at_fpr(s, y, (0.1, 0.001))))(scores, labels)
    np.testing.assert_allclose(tpr[:, 0], [sklearn_tpr(s, y, 0.1) for s, y in several], rtol=1e-6)
    assert np.isnan(tpr[:, 1]).all()
    same = jax.jit(lambda s: tpr_at_fpr(s, labels[0], 0.1))(scores[0])
    assert float(same) == float(tpr[0, 0])


def test_too_few_negatives_warn_and_give_no_number():
    scores, labels = sample(7)
    with pytest.warns(RocWarning, match=r"no TPR at 0.1 % FPR.*at least 10000 are needed"):
        tpr = tpr_at_fpr(scores, labels, (0.1, 0.001))
    assert np.isfinite(tpr[0])
    assert np.isnan(tpr[1])
    assert why_no_rate(1000, 0.01) is None
    assert "at least 1000 are needed" in str(why_no_rate(999, 0.01))


@pytest.mark.parametrize("levels", [1, 1e6])
def test_curve_and_oracle(levels):
    scores, labels = sample(levels, n=200)
    curve = roc_curve(scores, labels)
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    best = oracle_accuracy(scores, labels)
    every = [metrics.balanced_accuracy_score(labels, scores >= t) for t in thresholds]
    assert best.accuracy == pytest.approx(max(every))
    at = metrics.balanced_accuracy_score(labels, scores >= best.threshold)
    assert at == pytest.approx(best.accuracy)


def test_infinite_scores_have_ranks():
    scores, labels = np.array([np.inf, 1, 0, -np.inf]), np.array([True, False, True, False])
    assert float(roc_auc(scores, labels)) == 0.75
    assert roc_curve(scores, labels).thresholds.tolist() == [np.inf, np.inf, 1, 0, -np.inf]


@pytest.mark.parametrize("levels", [1, 3, 1e6])
def test_threshold_is_the_lowest_that_keeps_the_rate(levels):
    known = sample(levels, n=300)[0]
    for fpr in (0.003, 0.05, 0.5):
        threshold = threshold_at_fpr(known, fpr)
        assert np.mean(known > threshold) <= fpr
        lower = known[known < threshold]
        assert not lower.size or np.mean(known > lower.max()) > fpr


def test_calibrated_accuracy_counts():
    scores, labels = sample(1e6)
    known = np.random.default_rng(1).normal(size=20_000) * 1e6
    found = calibrated_accuracy(scores, labels, known, fpr=0.1)
    above = scores > threshold_at_fpr(known, 0.1)
    assert found.fpr == clopper_pearson(int(above[~labels].sum()), int((~labels).sum()))
    assert found.tpr == clopper_pearson(int(above[labels].sum()), int(labels.sum()))
    assert found.accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, above))
    assert found.fpr.low < 0.1 < found.fpr.high
    assert found.known_fpr.estimate == 0.1


def test_equal_to_jax_privacy_on_the_convex_hull_of_the_curve():
    auditing = pytest.importorskip("jax_privacy.auditing")
    spatial = pytest.importorskip("scipy.spatial")
    scores, labels = sample(3)
    auditor = auditing.CanaryScoreAuditor(scores[labels], scores[~labels])
    curve = roc_curve(scores, labels)
    # it lets an attacker toss coins between thresholds: the hull of the curve, seen from above
    corners = np.stack([np.append(curve.fpr, 1), np.append(curve.tpr, 0)], axis=1)
    hull = corners[np.sort(spatial.ConvexHull(corners).vertices)]
    hull = hull[np.lexsort((hull[:, 1], hull[:, 0]))]
    hull = hull[hull[:, 1] >= hull[:, 0]]
    assert auditor.attack_auroc() == pytest.approx(np.trapezoid(hull[:, 1], hull[:, 0]))
    for fpr in (0.01, 0.1, 0.5):
        expected = np.interp(fpr, hull[:, 0], hull[:, 1])
        assert auditor.tpr_at_given_fpr(fpr) == pytest.approx(expected)
        assert float(tpr_at_fpr(scores, labels, fpr)) <= expected + 1e-6
    best = oracle_accuracy(scores, labels).accuracy
    assert auditor.max_accuracy(prevalence=0.5) == pytest.approx(best)


YES = np.array([True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roc_auc([0.1, np.nan], YES), "1 NaN"),
        (lambda: roc_auc([[0.1, 0.2]], YES), r"\[N\]"),
        (lambda: roc_auc([0.1, 0.2, 0.3], YES), r"\(3,\) and \(2,\)"),
        (lambda: roc_auc([0.1, 0.2], [1, 0]), "bool mask"),
        (lambda: roc_auc([0.1, 0.2], [True, True]), "all 2 labels are positive"),
        (lambda: roc_curve([0.1, 0.2], [False, False]), "all 2 labels are negative"),
        (lambda: oracle_accuracy(["a", "b"], YES), "not real numbers"),
        (lambda: tpr_at_fpr([0.1, 0.2], YES, 0.0), "rates lie above 0"),
        (lambda: tpr_at_fpr([0.1, 0.2], YES, (0.1, 1.5)), "rates lie above 0"),
        (lambda: threshold_at_fpr([0.1], 1.0), "between 0 and 1"),
        (lambda: threshold_at_fpr([], 0.1), "one number per example"),
        (lambda: calibrated_accuracy([0.1, 0.2], YES, [np.nan]), "NaN"),
        (lambda: calibrated_accuracy([0.1, 0.2], YES, [0.1], confidence=95), "confidence is 95"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_nothing_is_lost_on_large_counts():
    scores = jnp.arange(40_000) % 20_000
    labels = jnp.arange(40_000) < 20_000
    assert float(roc_auc(scores, labels)) == pytest.approx(0.5, abs=1e-6)
