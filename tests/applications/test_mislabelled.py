"""Suspicion held against formulas in numpy and scikit-learn, planted noise, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from jaxinf.applications.mislabelled import (
    METHODS,
    Evidence,
    class_folds,
    confident_joint,
    cross_fit,
    cross_fit_logistic,
    find_mislabelled,
    mixture_noise_rate,
    suggest_labels,
)
from jaxinf.datasets import load_digits, symmetric_label_noise
from jaxinf.errors import InputError
from jaxinf.evaluation import detection_auc
from jaxinf.models import MLP, cross_entropy

RNG = np.random.default_rng(0)
COUNT, WIDTH, CLASSES = 40, 3, 3


def loss_fn(w, batch):
    return cross_entropy(batch["x"] @ w["w"], batch)


def labelled(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, WIDTH)).astype(np.float32)
    return {"x": x, "y": (np.arange(count) % CLASSES).astype(np.int32)}


TRAIN, TRUSTED = labelled(COUNT, 0), labelled(12, 1)
W = RNG.normal(size=(WIDTH, CLASSES)).astype(np.float32)
STACK = {"w": np.stack([W, 0.1 * W])}
LOGS = np.log(RNG.dirichlet(np.ones(CLASSES), COUNT))
EVIDENCE = Evidence(TRAIN, loss_fn, {"w": W}, TRUSTED, LOGS, STACK)


def probabilities(side, w=W):
    logits = side["x"].astype(np.float64) @ w
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def gradients(side, w=W):
    """[N, d, C], by the formula x ⊗ (p − e)."""
    residual = probabilities(side, w) - np.eye(CLASSES)[side["y"]]
    return side["x"].astype(np.float64)[:, :, None] * residual[:, None, :]


def suspicion(method):
    found = find_mislabelled(EVIDENCE, method, budget=5, batch_size=16)
    assert found.is_flagged.sum() == 5
    assert found.suspicion[found.is_flagged].min() >= found.suspicion[~found.is_flagged].max()
    np.testing.assert_array_equal(np.sort(found.order), np.arange(COUNT))
    return found.suspicion


def test_influence_on_the_trusted_set_by_the_formula():
    every = gradients(TRAIN).reshape(COUNT, -1)
    query = gradients(TRUSTED).reshape(12, -1).mean(axis=0)
    dots = -every @ query
    np.testing.assert_allclose(suspicion("trusted_grad_dot"), dots, atol=1e-5)
    # the step of forward_inf_jvp is one of SGD at 0.01
    np.testing.assert_allclose(suspicion("trusted_jvp"), 0.01 * dots, atol=1e-7)
    cosines = dots / np.linalg.norm(every, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(suspicion("trusted_grad_cos"), cosines, atol=1e-5)
    # the norms are estimated: relative error about sqrt(1 / 2 / 256)
    scaled = 0.01 * dots / np.linalg.norm(every, axis=1)
    np.testing.assert_allclose(suspicion("trusted_jvp_cos"), scaled, rtol=0.25)
    fisher = every.T @ every / COUNT
    damping = np.trace(fisher) / min(fisher.shape[0], COUNT)
    solved = np.linalg.solve(fisher + damping * np.eye(len(fisher)), query)
    np.testing.assert_allclose(
        suspicion("trusted_preconditioned"), -every @ solved / COUNT, rtol=1e-3, atol=1e-5
    )


def test_the_finite_step_against_training_by_hand():
    group = {key: jnp.asarray(value) for key, value in TRUSTED.items()}
    optimizer = optax.adam(1e-3)
    w = {"w": jnp.asarray(W)}
    state = optimizer.init(w)
    grad = jax.jit(jax.grad(lambda at: loss_fn(at, group).mean()))
    for _ in range(20):
        updates, state = optimizer.update(grad(w), state)
        w = optax.apply_updates(w, updates)
    after, before = (np.asarray(loss_fn(at, TRAIN)) for at in (w, {"w": W}))
    np.testing.assert_allclose(suspicion("trusted_finite"), after - before, atol=1e-5)
    np.testing.assert_allclose(suspicion("trusted_finite_loss"), after, atol=1e-5)


def test_self_influence_and_losses_by_the_formula():
    own = lambda w: probabilities(TRAIN, w)[np.arange(COUNT), TRAIN["y"]]
    np.testing.assert_allclose(suspicion("loss"), -np.log(own(W)), atol=1e-5)
    norms = np.linalg.norm(gradients(TRAIN).reshape(COUNT, -1), axis=1)
    np.testing.assert_allclose(suspicion("gradient_norm"), norms, rtol=1e-4)
    estimated = suspicion("self_jvp")  # 64 probes: relative error about sqrt(1 / 2 / 64)
    assert 0.8 < np.median(estimated / norms) < 1.2
    assert np.corrcoef(estimated, norms)[0, 1] > 0.9
    each = [own(W), own(0.1 * W)]
    np.testing.assert_allclose(suspicion("early_loss"), -np.log(each).mean(axis=0), atol=1e-5)
    odds = np.mean([np.log((1 - p) / p) for p in each], axis=0)
    np.testing.assert_allclose(suspicion("early_margin"), odds, atol=1e-4)


def test_held_out_scores_by_the_formula():
    p, y = np.exp(LOGS), TRAIN["y"]
    rows = np.arange(COUNT)
    np.testing.assert_allclose(suspicion("out_of_fold_loss"), -np.log(p[rows, y]), rtol=1e-9)
    others = p.copy()
    others[rows, y] = 0
    np.testing.assert_allclose(
        suspicion("out_of_fold_margin"), np.log(others.max(axis=1) / p[rows, y]), rtol=1e-7
    )
    thresholds = np.array([p[y == c, c].mean() for c in range(CLASSES)])
    excess = p - thresholds
    best = np.where(np.eye(CLASSES, dtype=bool)[y], -9, excess).max(axis=1)
    np.testing.assert_allclose(
        suspicion("confident_learning"), best - excess[rows, y], rtol=1e-7, atol=1e-12
    )


@pytest.mark.slow
def test_every_other_method_prefers_a_planted_wrong_label():
    """Two far clusters, one label swapped: any sane score puts it first."""
    x = np.concatenate([RNG.normal(-2, 0.3, (30, 2)), RNG.normal(2, 0.3, (30, 2))])
    y = np.repeat([0, 1], 30).astype(np.int32)
    trusted = {"x": x[::6].astype(np.float32), "y": y[::6]}
    y = y.copy()
    y[7] = 1
    train = {"x": x.astype(np.float32), "y": y}
    module = MLP((), 2)
    weights = {"linear": {"kernel": jnp.array([[-0.5, 0.5], [-0.5, 0.5]]), "bias": jnp.zeros(2)}}
    loss = lambda params, batch: cross_entropy(module.apply({"params": params}, batch["x"]), batch)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), weights)
    logs = cross_fit_logistic(x, y, 2, num_folds=3)
    evidence = Evidence(train, loss, weights, trusted, logs, stacked)
    for method in ("trusted_early_ensemble", "self_preconditioned", "out_of_fold_margin"):
        found = find_mislabelled(evidence, method, budget=1)
        assert found.order[0] == 7, method
        assert found.suggested[7] == 0
    ranks = [
        np.argsort(np.argsort(find_mislabelled(evidence, part, budget=0).suspicion))
        for part in ("out_of_fold_margin", "early_loss", "loss")
    ]
    consensus = find_mislabelled(evidence, "consensus", budget=0).suspicion
    np.testing.assert_allclose(consensus, (np.mean(ranks, axis=0) + 1) / 60, atol=0.02)
    assert METHODS["consensus"].forward_only


def test_folds_hold_their_share_of_every_class():
    labels = np.repeat([0, 1, 2], [50, 7, 2])
    folds = class_folds(labels, 4, repeats=3, seed=1)
    assert folds.shape == (3, 59)
    assert not np.array_equal(folds[0], folds[1])
    for row in folds:
        for chosen in (np.ones(59, bool), labels == 0, labels == 1, labels == 2):
            sizes = np.bincount(row[chosen], minlength=4)
            assert np.ptp(sizes) <= 1


def test_logistic_cross_fit_against_scikit_learn():
    x, y = TRAIN["x"], TRAIN["y"]
    x = x + np.eye(CLASSES, WIDTH, dtype=np.float32)[y]
    found = cross_fit_logistic(x, y, CLASSES, num_folds=4, l2=2.0, seed=3)
    folds = class_folds(y, 4, seed=3)[0]
    design = np.hstack([(x - x.mean(0)) / x.std(0), np.ones((COUNT, 1))])
    for fold in range(4):
        left = folds == fold
        model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8, max_iter=1000)
        model.fit(design[~left], y[~left])
        np.testing.assert_allclose(
            np.exp(found[left]), model.predict_proba(design[left]), atol=5e-3
        )


def test_network_cross_fit_finds_planted_noise_and_resumes(tmp_path):
    train, _ = load_digits(seed=0)
    train = {"x": np.asarray(train["x"])[:300].astype(np.float32), "y": train["y"][:300]}
    noisy = symmetric_label_noise(train, 0.1, 10, seed=0)
    fit = lambda key=0: cross_fit(
        MLP((16,), 10),
        noisy.examples,
        10,
        optimizer=optax.adam(1e-2),
        num_epochs=8,
        batch_size=20,
        key=jax.random.key(key),
        num_folds=3,
        store=tmp_path,
        progress=False,
    )
    logs = fit()
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-5)
    found = find_mislabelled(Evidence(noisy.examples, out_of_fold=logs))
    assert detection_auc(found.suspicion, noisy.is_flipped) > 0.9
    assert abs(found.noise_rate - 0.1) < 0.08
    right = found.suggested == noisy.original_labels
    assert right[noisy.is_flipped].mean() > 0.6
    # a killed run: its last models are lost, the first are not trained again
    made = sorted(path for path in tmp_path.rglob("chunk_*") if path.is_dir())
    stamps = [path.stat().st_mtime_ns for path in made]
    np.testing.assert_array_equal(fit(), logs)
    assert [path.stat().st_mtime_ns for path in made] == stamps
    with pytest.raises(InputError):
        fit(1)


def test_confident_joint_of_a_known_posterior_and_by_hand():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 6000)
    logs = np.log(0.9 * np.eye(3)[truth] + 0.1 / 3)
    flipped = rng.random(6000) < np.array([0.3, 0.1, 0.0])[truth]
    given = np.where(flipped, (truth + 1) % 3, truth)
    found = confident_joint(logs, given)
    np.testing.assert_allclose(found.joint.sum(), 1)
    assert abs(found.rate - flipped.mean()) < 1e-6
    np.testing.assert_allclose(found.joint[1, 0], (flipped & (truth == 0)).mean(), atol=1e-6)
    assert confident_joint(logs, truth).rate == pytest.approx(0, abs=1e-12)


def test_mixture_of_two_heaps():
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(-3, 1, 700), rng.normal(3, 0.7, 300)])
    assert abs(mixture_noise_rate(scores).rate - 0.3) < 0.02
    found = find_mislabelled(
        Evidence(
            {"x": np.zeros((1000, 1), np.float32), "y": np.zeros(1000, int)},
            out_of_fold=np.stack([-scores, np.zeros(1000)], axis=1),
        ),
        budget="mixture",
    )
    assert abs(found.noise_rate - 0.3) < 0.02


def changed(**changes):
    fields = {name: getattr(EVIDENCE, name) for name in EVIDENCE.__dataclass_fields__}
    return Evidence(**(fields | changes))


NAN = {"x": np.full((6, 2), np.nan, np.float32), "y": np.array([0, 0, 0, 1, 1, 1])}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_mislabelled(EVIDENCE, "magic"), "method is 'magic'"),
        (lambda: find_mislabelled(changed(params=None), "loss"), "loss needs params"),
        (lambda: find_mislabelled(changed(trusted=None), "trusted_jvp"), "needs trusted"),
        (lambda: find_mislabelled(changed(out_of_fold=None)), "needs out_of_fold"),
        (lambda: find_mislabelled(changed(out_of_fold=LOGS[:5])), "5 predictions"),
        (lambda: find_mislabelled(changed(out_of_fold=LOGS * np.nan)), "NaN"),
        (lambda: find_mislabelled(EVIDENCE, budget=41), "budget is 41: give 0 to 40 examples"),
        (lambda: find_mislabelled(EVIDENCE, budget=1.5), "a share from 0 to below 1"),
        (lambda: find_mislabelled(EVIDENCE, budget=-0.1), "a share from 0"),
        (lambda: find_mislabelled(EVIDENCE, budget=float("nan")), "a share from 0"),
        (lambda: find_mislabelled(EVIDENCE, budget="many"), "budget is 'many'"),
        (lambda: find_mislabelled(EVIDENCE, budget=True), "budget is True"),
        (
            lambda: find_mislabelled(changed(out_of_fold=None), "loss", budget="confident_joint"),
            "confident joint needs out_of_fold",
        ),
        (
            lambda: find_mislabelled(
                changed(trusted=TRUSTED | {"y": TRUSTED["y"] + 1}), "trusted_jvp"
            ),
            "1 classes that the training set lacks, such as 3",
        ),
        (
            lambda: find_mislabelled(
                changed(trusted={"x": TRUSTED["x"][:0], "y": TRUSTED["y"][:0]}), "trusted_jvp"
            ),
            "trusted",
        ),
        (lambda: find_mislabelled(changed(train=NAN | {"y": NAN["y"]}), "loss"), "NaN"),
        (
            lambda: find_mislabelled(changed(train={"x": TRAIN["x"], "y": TRAIN["y"][:9]}), "loss"),
            "train",
        ),
        (lambda: find_mislabelled(changed(train=TRAIN["x"]), "loss"), "dict with 'x' and 'y'"),
        (lambda: class_folds([0, 0, 0, 1], 2), "class 1 has one example"),
        (lambda: class_folds([0, 0], 3), "3 folds of 2"),
        (lambda: class_folds([0, 0], 1), "num_folds is 1"),
        (lambda: class_folds([], 2), r"int\[N\]"),
        (lambda: cross_fit_logistic(NAN["x"], NAN["y"], 2), "NaN"),
        (lambda: cross_fit_logistic(TRAIN["x"], TRAIN["y"][:9], 3), "one label each"),
        (lambda: cross_fit_logistic(TRAIN["x"][:0], TRAIN["y"][:0], 3), "train"),
        (lambda: cross_fit_logistic(TRAIN["x"], TRAIN["y"], 2), "0 .. 1"),
        (lambda: cross_fit_logistic(TRAIN["x"], TRAIN["y"], 3, l2=0), "l2 is 0"),
        (lambda: mixture_noise_rate(np.zeros(9)), "at least 10"),
        (lambda: mixture_noise_rate(np.zeros(20)), "all scores are alike"),
        (lambda: suggest_labels(np.zeros(3)), r"\[N, C\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
