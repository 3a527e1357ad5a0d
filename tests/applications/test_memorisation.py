"""Memorisation scores against problems that can be enumerated, and against leaving one out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf.adapters import stateful_from_linen
from jaxinf.applications.memorisation import (
    RECIPES,
    fold_subsets,
    influence_scores,
    memorisation_estimates,
    memorisation_scores,
    retrain_and_record,
    split_half_reliability,
    tie_ceiling,
)
from jaxinf.errors import InputError
from jaxinf.evaluation import spearman
from jaxinf.influence.ground_truth import draw_subsets, sgd_trainer
from jaxinf.influence.logra import logra
from jaxinf.influence.self_influence import self_influence
from jaxinf.models import MLP, cross_entropy

POINTS = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.25, 0.15, 5.0])
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 0])  # row 6 is mislabelled, row 7 alone


def every_subset(count, size):
    masks = np.zeros((0, count), bool)
    for chosen in itertools.combinations(range(count), size):
        masks = np.concatenate([masks, np.isin(np.arange(count), chosen)[None]])
    return masks


def nearest_neighbour(masks, points, labels):
    """Is 1-NN, trained on each mask's rows, right about each row?"""
    distances = np.abs(points[:, None] - points[None, :])
    right = [labels[np.where(mask, distances, np.inf).argmin(axis=1)] == labels for mask in masks]
    return np.stack(right)


@pytest.fixture(scope="module")
def enumerated():
    masks = every_subset(8, 6)
    return masks, nearest_neighbour(masks, POINTS, LABELS)


def test_scores_are_exact_where_all_subsets_are_enumerated(enumerated):
    masks, right = enumerated
    found = memorisation_scores(masks, right)
    for i in range(8):
        inside = [ok for mask, ok in zip(masks, right[:, i], strict=True) if mask[i]]
        outside = [ok for mask, ok in zip(masks, right[:, i], strict=True) if not mask[i]]
        assert found.scores[i] == pytest.approx(np.mean(inside) - np.mean(outside), abs=1e-12)
        variance = np.var(inside, ddof=1) / len(inside) + np.var(outside, ddof=1) / len(outside)
        assert found.standard_errors[i] == pytest.approx(np.sqrt(variance), abs=1e-12)
        assert (found.num_in[i], found.num_out[i]) == (21, 7)
    # 1-NN is always right about what it holds; only the odd ones are lost without themselves
    assert found.mean_in.tolist() == [1.0] * 8
    assert found.scores[6] == 1.0
    assert found.scores[7] == 1.0
    assert found.scores[[3, 4, 5]].max() == 0.0


def test_influence_on_oneself_is_memorisation(enumerated):
    masks, right = enumerated
    whole = influence_scores(masks, right)
    own = memorisation_scores(masks, right)
    for name in ("scores", "standard_errors", "mean_in", "mean_out"):
        diagonal = np.diagonal(getattr(whole, name))
        np.testing.assert_allclose(diagonal, getattr(own, name), atol=1e-12)
    # without row 7 no other row changes; the mislabelled row 6 harms its neighbours
    assert whole.scores[3, 7] == 0.0
    assert whole.scores[2, 6] < 0
    by_hand = right[masks[:, 6], 2].mean() - right[~masks[:, 6], 2].mean()
    assert whole.scores[2, 6] == pytest.approx(by_hand, abs=1e-12)


def test_permuting_the_examples_permutes_the_scores(enumerated):
    masks, right = enumerated
    order = np.random.default_rng(0).permutation(8)
    found = memorisation_scores(masks, right)
    again = memorisation_scores(masks[:, order], right[:, order])
    np.testing.assert_array_equal(again.scores, found.scores[order])
    np.testing.assert_array_equal(again.standard_errors, found.standard_errors[order])


def test_leaving_one_out_of_all_is_the_limit_of_large_subsets(enumerated):
    right = nearest_neighbour(~np.eye(8, dtype=bool), POINTS, LABELS)
    left_out = 1.0 - np.diagonal(right)
    # subsets of all but one, and the whole set, are leave-one-out itself
    masks = np.concatenate([~np.eye(8, dtype=bool), np.ones((1, 8), bool)])
    found = memorisation_scores(masks, nearest_neighbour(masks, POINTS, LABELS))
    np.testing.assert_array_equal(found.scores, left_out)
    large = memorisation_scores(*(a for a in enumerated))
    assert spearman(large.scores[None], left_out[None])[0] > 0.8


def test_standard_errors_cover_the_exact_scores():
    rng = np.random.default_rng(0)
    exact = np.linspace(0.1, 0.9, 400)
    masks = draw_subsets(60, 400, fraction=0.5, seed=0)
    right = masks | (rng.random((60, 400)) > exact)
    found = memorisation_scores(masks, right)
    inside = np.abs(found.scores - exact) < 2 * found.standard_errors
    assert 0.90 < inside.mean() < 0.98


def test_always_in_and_never_in_are_nan_and_counted():
    masks = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 1]], bool)
    right = np.ones((3, 4), bool)
    found = memorisation_scores(masks, right)
    assert np.isnan(found.scores).tolist() == [True, True, False, False]
    assert found.num_undefined == 2
    # one model on a side has no spread to tell
    assert np.isnan(found.standard_errors).all()
    test = influence_scores(masks, right[:, :2])
    assert np.isnan(test.scores[:, :2]).all()
    assert np.isfinite(test.scores[:, 2:]).all()


def test_reliability_predicts_a_second_run_and_the_ceiling():
    rng = np.random.default_rng(1)
    exact = rng.beta(0.5, 1.5, 300)

    def run(seed, count):
        masks = draw_subsets(count, 300, fraction=0.7, seed=seed)
        draw = np.random.default_rng(seed).random((count, 300))
        return masks, masks | (draw > exact)

    first, second = run(1, 60), run(2, 60)
    found = split_half_reliability(*first, seed=0)
    scores = memorisation_scores(*first).scores
    again = spearman(scores[None], memorisation_scores(*second).scores[None])[0]
    best = spearman(scores[None], exact[None])[0]
    assert found.full == pytest.approx(again, abs=0.05)
    assert found.ceiling == pytest.approx(best, abs=0.03)
    assert found.half < found.full < found.ceiling


def test_tie_ceiling_is_reached_by_the_right_order():
    rng = np.random.default_rng(0)
    tied = np.where(rng.random(200) < 0.6, 0.0, rng.random(200))
    untied = tied + 1e-9 * rng.random(200)
    assert tie_ceiling(tied) == pytest.approx(spearman(tied[None], untied[None])[0], abs=1e-12)


def test_folds_leave_each_example_out_equally_often():
    folds = fold_subsets(3, 11, repeats=4, seed=0)
    assert folds.shape == (12, 11)
    np.testing.assert_array_equal((~folds).sum(axis=0), 4)
    np.testing.assert_array_equal((~folds).reshape(4, 3, 11).sum(axis=1), 1)
    assert not np.array_equal(folds[:3], folds[3:6])
    np.testing.assert_array_equal(folds, fold_subsets(3, 11, repeats=4, seed=0))


RNG = np.random.default_rng(0)
CENTRES = np.eye(2, 4) * 3
TRAIN_Y = np.arange(24) % 2
TRAIN = {
    "x": (CENTRES[TRAIN_Y] + RNG.normal(size=(24, 4))).astype(np.float32),
    "y": np.where(np.arange(24) < 2, 1 - TRAIN_Y, TRAIN_Y).astype(np.int32),
}
TEST = {name: a[4:9] for name, a in TRAIN.items()}
MODULE = MLP((16,), 2)
KEY = jax.random.key(3)


def init(key):
    return MODULE.init(key, TRAIN["x"][:1])["params"], {}


def logits_fn(params, state, batch):
    return MODULE.apply({"params": params}, batch["x"])


LOSS = stateful_from_linen(MODULE, {"params": init(KEY)[0]}, cross_entropy)[0]
OPTIMIZER = optax.adam(0.05)
SETTINGS = {"optimizer": OPTIMIZER, "num_epochs": 60, "batch_size": 18, "key": KEY}


@pytest.fixture(scope="module")
def recorded():
    subsets = draw_subsets(40, 24, fraction=0.75, seed=0)
    return retrain_and_record(
        LOSS, init, logits_fn, TRAIN, TEST, subsets=subsets, rows_at_once=7, progress=False,
        **SETTINGS,
    )  # fmt: skip


def test_records_are_the_answers_of_the_models(recorded):
    trainer = sgd_trainer(
        LOSS, init, TRAIN, optimizer=OPTIMIZER, num_epochs=60, batch_size=18, outputs=None
    )
    rows = jnp.asarray(np.flatnonzero(recorded.subsets[5]))
    params, state = jax.jit(trainer)(jax.random.fold_in(KEY, 5), rows)
    for side, correct, probability in (
        (TRAIN, recorded.correct, recorded.probability),
        (TEST, recorded.test_correct, recorded.test_probability),
    ):
        logits = logits_fn(params, state, side)
        own = jax.nn.softmax(logits)[np.arange(len(side["y"])), side["y"]]
        np.testing.assert_allclose(probability[5], own, atol=1e-4)
        np.testing.assert_array_equal(correct[5], logits.argmax(axis=1) == side["y"])


def test_mislabelled_examples_are_the_memorised_ones(recorded):
    assert recorded.train_accuracy > 0.99
    found = memorisation_scores(recorded.subsets, recorded.correct)
    assert set(np.argsort(-found.scores)[:2]) == {0, 1}
    assert found.scores[:2].min() > 0.9
    assert recorded.left_out_accuracy < recorded.train_accuracy


def test_subset_estimates_agree_with_leaving_each_example_out(recorded):
    """All but one, and all: by the same training, many starts each."""
    masks = np.concatenate([~np.eye(24, dtype=bool)] * 8 + [np.ones((8, 24), bool)])
    alone = retrain_and_record(
        LOSS, init, logits_fn, TRAIN, subsets=masks, progress=False, rows_at_once=7, **SETTINGS
    )
    exact = memorisation_scores(masks, alone.probability).scores
    few = memorisation_scores(recorded.subsets, recorded.probability).scores
    assert spearman(exact[None], few[None])[0] > 0.8


def test_a_killed_run_goes_on(tmp_path, recorded):
    options = {"subsets": recorded.subsets, "rows_at_once": 7, "progress": False, **SETTINGS}
    run = lambda: retrain_and_record(
        LOSS, init, logits_fn, TRAIN, TEST, models_at_once=40, store=tmp_path / "store", **options
    )
    np.testing.assert_array_equal(run().correct, recorded.correct)
    chunks = list((tmp_path / "store").glob("chunk_*"))
    before = [chunk.stat().st_mtime_ns for chunk in chunks]
    np.testing.assert_allclose(run().probability, recorded.probability, atol=1e-5)
    assert [chunk.stat().st_mtime_ns for chunk in chunks] == before


def loss_fn(params, batch):
    return cross_entropy(logits_fn(params, {}, batch), batch)


@pytest.fixture(scope="module")
def whole_models():
    trainer = sgd_trainer(LOSS, init, TRAIN, optimizer=OPTIMIZER, num_epochs=12, batch_size=24)
    train = jax.jit(jax.vmap(lambda key: trainer(key, jnp.arange(24))[0]))
    return train(jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_finds_the_mislabelled_examples(recipe, whole_models, recorded):
    found = memorisation_estimates(loss_fn, whole_models, TRAIN, recipe=recipe, batch_size=24)
    assert found.shape == (3, 24)
    assert set(np.argsort(-found.mean(axis=0))[:2]) == {0, 1}


def test_recipes_are_what_they_say(whole_models):
    one = jax.tree.map(lambda a: a[:1], whole_models)
    params = jax.tree.map(lambda a: a[0], whole_models)
    estimate = lambda recipe, **options: memorisation_estimates(
        loss_fn, one, TRAIN, recipe=recipe, batch_size=24, **options
    )[0]
    p = np.asarray(jax.nn.softmax(logits_fn(params, {}, TRAIN)))[np.arange(24), TRAIN["y"]]
    np.testing.assert_allclose(estimate("doubt"), 1 - p, atol=1e-5)
    gradients = jax.vmap(
        jax.grad(lambda at, x, y: loss_fn(at, {"x": x[None], "y": y[None]})[0]), (None, 0, 0)
    )(params, TRAIN["x"], TRAIN["y"])
    squared = sum(
        np.square(np.asarray(g)).reshape(24, -1).sum(1) for g in jax.tree.leaves(gradients)
    )
    np.testing.assert_allclose(estimate("gradient"), squared, rtol=1e-4)
    # a small step raises p by p times the squared gradient
    small = estimate("step", learning_rate=1e-3) / 1e-3
    np.testing.assert_allclose(small, p * squared, rtol=0.05, atol=2e-2)
    method = logra(
        loss_fn, rank=16, init="pca", damping=0.5, measure="margin", with_self_score=True
    )
    own = self_influence(method, params, TRAIN, batch_size=24)
    np.testing.assert_allclose(estimate("curvature", damping=0.5), own, rtol=1e-4)


def test_bad_subsets_and_outputs():
    masks = np.array([[1, 0, 1], [0, 1, 1]], bool)
    right = np.ones((2, 3))
    with pytest.raises(InputError, match=r"outputs \[2, 2\] do not fit subsets \[2, 3\]"):
        memorisation_scores(masks, right[:, :2])
    with pytest.raises(InputError, match="takes at least two"):
        memorisation_scores(masks[:1], right[:1])
    with pytest.raises(InputError, match="subset 1 is empty"):
        memorisation_scores(masks & np.array([[True], [False]]), right)
    with pytest.raises(InputError, match=r"outputs of model 1 hold NaN .*\(1 of 2 models\)"):
        memorisation_scores(masks, np.where(np.arange(2)[:, None] == 1, np.nan, right))
    with pytest.raises(InputError, match="not numbers"):
        memorisation_scores(masks, right.astype(str))
    with pytest.raises(InputError, match="a bool mask"):
        memorisation_scores(np.zeros((0, 3), bool), np.zeros((0, 3)))
    with pytest.raises(InputError, match=r"do not fit subsets .* test example"):
        influence_scores(masks, np.ones((3, 2)))
    with pytest.raises(InputError, match=r"do not fit subsets .* test example"):
        influence_scores(masks, np.ones((2, 0)))
    with pytest.raises(InputError, match="two halves need at least 4"):
        split_half_reliability(masks, right, seed=0)
    with pytest.raises(InputError, match="at least 2"):
        tie_ceiling([1.0, np.nan])
    with pytest.raises(InputError, match="5 folds of 3 examples"):
        fold_subsets(5, 3, seed=0)


def test_bad_training():
    subsets = draw_subsets(3, 24, seed=0)
    run = lambda train, masks, **more: retrain_and_record(
        LOSS, init, logits_fn, train, subsets=masks, progress=False, **SETTINGS, **more
    )
    lone = TRAIN | {"y": np.where(np.arange(24) == 3, 1, 0).astype(np.int32)}
    with pytest.raises(InputError, match="has no example of class 1"):
        run(lone, ~np.eye(24, dtype=bool)[2:5])
    with pytest.raises(InputError, match="do not fit 24 training examples"):
        run(TRAIN, subsets[:, :20])
    with pytest.raises(InputError, match=r"out of range for 2 classes"):
        run(TRAIN | {"y": TRAIN["y"] + 1}, subsets)
    with pytest.raises(InputError, match=r"train\['y'\] must be one integer"):
        run(TRAIN | {"y": TRAIN["x"][:, 0]}, subsets)
    with pytest.raises(InputError, match="test is empty"):
        run(TRAIN, subsets, test={name: a[:0] for name, a in TRAIN.items()})


def test_bad_estimates(whole_models):
    with pytest.raises(InputError, match="recipe is 'magic': choose from doubt"):
        memorisation_estimates(loss_fn, whole_models, TRAIN, recipe="magic")  # type: ignore
    ragged = jax.tree.map(lambda a: a[:2], whole_models)
    ragged = {**ragged, "linear": whole_models["linear"]}
    with pytest.raises(InputError, match="one leading axis, over models"):
        memorisation_estimates(loss_fn, ragged, TRAIN)
    broken = jax.tree.map(lambda a: a.at[1].set(jnp.nan), whole_models)
    with pytest.raises(InputError, match="scores of model 1 holds 24 NaN"):
        memorisation_estimates(loss_fn, broken, TRAIN, recipe="doubt")
