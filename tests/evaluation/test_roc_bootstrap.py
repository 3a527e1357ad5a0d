import jax
import numpy as np
import pytest
from sklearn import metrics

from jaxinf.errors import InputError
from jaxinf.evaluation import roc_bootstrap
from jaxinf.evaluation.roc import auc_of_counts, ladder, tpr_of_counts
from jaxinf.evaluation.roc_bootstrap import bootstrap_roc, percentile_interval


def sample(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    shared = rng.normal(size=n)
    return np.round(2 * (shared + labels)), shared + rng.normal(size=n) / 4, labels


@pytest.fixture(scope="module")
def drawn():
    a, b, labels = sample()
    return bootstrap_roc([a, b], labels, key=jax.random.key(0), fprs=(0.1, 0.5))


def test_counting_a_row_twice_is_repeating_it():
    a, _, labels = sample(150)
    counts = np.random.default_rng(1).multinomial(150, np.full(150, 1 / 150)).astype(np.int32)
    scores, truth = np.repeat(a, counts), np.repeat(labels, counts)
    rungs = ladder(a[labels], a[~labels])
    weights = counts[labels], counts[~labels]
    expected = metrics.roc_auc_score(truth, scores)
    assert float(auc_of_counts(rungs, *weights)) == pytest.approx(expected, rel=1e-6)
    fpr, tpr, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    rates = np.array([0.05, 0.2, 0.7])
    expected = [tpr[fpr <= rate].max() for rate in rates]
    np.testing.assert_allclose(tpr_of_counts(rungs, *weights, rates), expected, rtol=1e-6)


def test_estimates_are_those_of_the_sample(drawn):
    a, b, labels = sample()
    for row, auc in zip((a, b), drawn.auc, strict=True):
        assert auc == pytest.approx(metrics.roc_auc_score(labels, row), rel=1e-6)


def test_draws_spread_as_a_plain_bootstrap_does(drawn):
    a, b, labels = sample()
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    plain = []
    for _ in range(200):
        chosen = np.concatenate([rng.choice(side, len(side)) for side in rows])
        plain.append([metrics.roc_auc_score(labels[chosen], s[chosen]) for s in (a, b)])
    plain = np.array(plain)
    np.testing.assert_allclose(drawn.auc_draws.std(0), plain.std(0), rtol=0.18)
    # paired: both scores share most of their noise, and so do their resamples
    paired = np.std(drawn.auc_draws[:, 0] - drawn.auc_draws[:, 1])
    assert paired == pytest.approx(np.std(plain[:, 0] - plain[:, 1]), rel=0.18)
    assert paired < 0.9 * np.hypot(*drawn.auc_draws.std(0))


def test_interval_covers_the_truth():
    # two normals a shift of 1 apart: AUC = Phi(1/sqrt 2) = 0.7602
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) < 100
        scores = rng.normal(size=200) + labels
        found = bootstrap_roc(
            [scores], labels, key=jax.random.key(seed), fprs=(0.1,), num_resamples=200
        )
        interval = percentile_interval(found.auc[0], found.auc_draws[:, 0], confidence=0.8)
        covered += interval.low <= 0.7602 <= interval.high
    assert 24 <= covered <= 39


def test_batches_of_resamples_change_nothing(drawn, monkeypatch):
    a, b, labels = sample()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(roc_bootstrap, "_ENTRIES_AT_ONCE", 5 * a.size)
    again = bootstrap_roc([a, b], labels, key=jax.random.key(0), fprs=(0.1, 0.5))
    np.testing.assert_allclose(again.auc_draws, drawn.auc_draws, rtol=1e-6)
    np.testing.assert_allclose(again.tpr_draws, drawn.tpr_draws, rtol=1e-6)


def test_keys_and_float64_scores():
    _, b, labels = sample()
    options = {"fprs": (0.1,), "num_resamples": 100}
    first, same, other = (
        bootstrap_roc([b], labels, key=jax.random.key(k), **options).auc_draws for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    # apart in float64 only
    close = bootstrap_roc([1 + 1e-9 * b], labels, key=jax.random.key(0), **options).auc_draws
    np.testing.assert_array_equal(close, first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_resamples": 10}, "num_resamples is 10"),
        ({"fprs": (0.0,)}, "rates lie above 0"),
        ({"scores": []}, "no row"),
        ({"scores": [[0.1, np.nan]]}, "NaN"),
        ({"is_positive": [True, True]}, "labels are positive"),
    ],
)
def test_bad_input(change, message):
    given = {"scores": [[0.1, 0.2]], "is_positive": [True, False]} | change
    with pytest.raises(InputError, match=message):
        bootstrap_roc(given.pop("scores"), given.pop("is_positive"), key=jax.random.key(0), **given)
