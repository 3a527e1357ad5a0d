import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score

from jaxinf.errors import InputError
from jaxinf.membership import attack_network as module
from jaxinf.membership import repeat_weakly_supervised_attack, select_pseudo_members

WIDTH = 8


def pairs(rng, count, likeness):
    """[image ‖ text], unit norm, the text leaning towards the image by `likeness`."""
    image = rng.normal(size=(count, WIDTH))
    text = rng.normal(size=(count, WIDTH)) + likeness * image
    unit = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in (image, text)]
    return np.concatenate(unit, axis=1).astype(np.float32)


RNG = np.random.default_rng(0)
NONMEMBERS = pairs(RNG, 150, 0.2)
UNLABELED = np.concatenate([pairs(RNG, 80, 0.2), pairs(RNG, 220, 1.5)])
TARGETS = np.concatenate([pairs(RNG, 100, 0.2), pairs(RNG, 100, 1.5)])
IS_MEMBER = np.arange(200) >= 100


def attack(**options):
    options = {"key": jax.random.key(0), "threshold_std": 0.5, "num_seeds": 3} | options
    return repeat_weakly_supervised_attack(NONMEMBERS, UNLABELED, TARGETS, **options)


@pytest.fixture(scope="module")
def best():
    return attack()


@pytest.fixture(scope="module")
def released():
    return attack(variant="released")


def test_pseudo_members_are_above_the_threshold():
    cosine = np.sum(NONMEMBERS[:, :WIDTH] * NONMEMBERS[:, WIDTH:], axis=1)
    threshold = cosine.mean() + 0.7 * cosine.std()
    found = select_pseudo_members(NONMEMBERS, UNLABELED, threshold_std=0.7)
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    expected = np.sum(UNLABELED[:, :WIDTH] * UNLABELED[:, WIDTH:], axis=1) >= threshold
    np.testing.assert_array_equal(found.mask, expected)


@pytest.mark.parametrize("needed", [101, 140])
def test_the_threshold_that_is_advised_is_enough_and_hardly_more(needed):
    with pytest.raises(InputError, match=f"{needed} are needed") as refused:
        select_pseudo_members(NONMEMBERS, UNLABELED, threshold_std=9, min_count=needed)
    advised = float(str(refused.value).split("at most ")[1].split(" ")[0])
    found = select_pseudo_members(NONMEMBERS, UNLABELED, threshold_std=advised, min_count=needed)
    assert needed <= found.mask.sum() <= needed + 8


def test_it_tells_members_and_reports_its_spread(best):
    assert best.seed_scores.shape == (3, 200)
    np.testing.assert_allclose(best.scores, np.mean(best.seed_scores, axis=0), atol=1e-5)
    assert roc_auc_score(IS_MEMBER, best.scores) > 0.75
    assert not np.allclose(best.seed_scores[0], best.seed_scores[1], atol=0.05)
    chosen = select_pseudo_members(NONMEMBERS, UNLABELED, threshold_std=0.5)
    assert best.num_pseudo_members == chosen.mask.sum()
    assert best.num_per_class == min(150, chosen.mask.sum())
    assert ((best.epochs >= 4) & (best.epochs <= 15)).all()
    assert (best.validation_loss < np.log(2)).all()


def test_the_released_variant_keeps_worse_weights_and_saturates(best, released):
    # the runs are the same but for what is kept
    assert (released.validation_loss >= best.validation_loss - 1e-6).all()
    assert (released.validation_loss > best.validation_loss + 1e-3).any()
    assert float(released.scores.min()) >= 0
    assert float(released.scores.max()) <= 1


def test_seeds_and_keys(best):
    again = attack()
    np.testing.assert_array_equal(again.seed_scores, best.seed_scores)
    other = attack(key=jax.random.key(1))
    assert not np.allclose(other.scores, best.scores, atol=0.05)


def test_a_plan_is_balanced_and_holds_a_tenth_out():
    members, others = np.arange(100, 190), np.arange(60)
    made = module.plan(jax.random.key(2), members, others, max_epochs=3)
    train, held_out = made.order[0], made.held_out
    every = np.concatenate([train, held_out])
    assert len(held_out) == 12
    assert len(np.unique(every)) == len(every) == 120
    assert (every < 60).sum() == 60
    assert set(every) <= set(members) | set(others)
    for order in made.order[1:]:
        assert sorted(order) == sorted(train)
        assert order.tolist() != train.tolist()
    other = module.plan(jax.random.key(3), members, others, max_epochs=3)
    assert set(other.order[0]) != set(train)


def test_one_seed_as_a_plain_loop_trains_it(best):
    """The same recipe in plain Python: ragged last batch, patience, best weights kept."""
    chosen = select_pseudo_members(NONMEMBERS, UNLABELED, threshold_std=0.5)
    features = jnp.concatenate([UNLABELED, NONMEMBERS])
    labels = np.arange(len(features)) < len(UNLABELED)
    key = jax.random.split(jax.random.key(0), 3)[1]
    nonmembers = len(UNLABELED) + np.arange(len(NONMEMBERS))
    drawn = module.plan(key, np.flatnonzero(chosen.mask), nonmembers, max_epochs=15)
    cut, held_out = drawn.order.shape[1], drawn.held_out
    model = module.MLP((512, 256, 128), 2)
    params = module.torch_init(model, key, features)

    def loss(params, rows):
        logits = model.apply({"params": params}, features[rows])
        targets = jnp.asarray(labels)[rows].astype(int)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, updates), state

    state, lowest, stale, epochs = optimizer.init(params), np.inf, 0, 0
    while epochs < 15 and stale < 3:
        order = drawn.order[epochs]
        for first in range(0, cut, 32):
            params, state = step(params, state, order[first : first + 32])
        epochs, now = epochs + 1, float(loss(params, held_out))
        if now < lowest:
            lowest, stale, kept = now, 0, params
        else:
            stale += 1
    assert cut % 32  # so that the last batch is ragged
    assert epochs == best.epochs[1]
    assert lowest == pytest.approx(float(best.validation_loss[1]), abs=2e-3)
    logits = model.apply({"params": kept}, TARGETS)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], best.seed_scores[1], atol=0.05)


def test_weights_start_as_torchs_linear_layers_do():
    params = module.torch_init(module.MLP((64,), 2), jax.random.key(0), jnp.ones((1, 400)))
    kernel, bias = params["Dense_0"]["kernel"], params["Dense_0"]["bias"]
    assert kernel.shape == (400, 64)
    for leaf in (kernel, bias):
        assert float(jnp.abs(leaf).max()) <= 1 / 20
        assert float(jnp.abs(leaf).max()) > 0.9 / 20
    assert float(kernel.std()) == pytest.approx(1 / 20 / np.sqrt(3), rel=0.02)


def run(nonmembers=NONMEMBERS, unlabeled=UNLABELED, targets=TARGETS, **options):
    options = {"key": jax.random.key(0)} | options
    return repeat_weakly_supervised_attack(nonmembers, unlabeled, targets, **options)


BROKEN = TARGETS.copy()
BROKEN[3, 2] = np.nan
EMPTY = TARGETS.copy()
EMPTY[5, WIDTH:] = 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(key=3), "key is int"),
        (lambda: run(num_seeds=0), "num_seeds is 0"),
        (lambda: run(max_epochs=0), "max_epochs is 0"),
        (lambda: run(min_count=3), "min_count is 3"),
        (lambda: run(variant="paper"), "variant is 'paper'"),
        (lambda: run(threshold_std=np.nan), "threshold_std is nan"),
        (lambda: run(threshold_std=9), r"leaves 0 of 300 .* threshold_std of at most 2\.\d+"),
        (lambda: run(unlabeled=UNLABELED[:50]), "there are only 50, so give more"),
        (lambda: run(nonmembers=NONMEMBERS[:50]), "50 nonmember_features: at least 100"),
        (lambda: run(targets=TARGETS[:, :14]), "16 columns and .* 14"),
        (lambda: run(targets=TARGETS[:, :15]), "15 columns: image and text halves"),
        (lambda: run(targets=BROKEN), "first in example 3"),
        (lambda: run(targets=EMPTY), r"text half\)\[5\] is all zeros"),
        (
            lambda: run(targets=np.concatenate([TARGETS, NONMEMBERS[7:9]])),
            r"nonmember_features and target_features share 2 rows, first nonmember_features\[7\] "
            r"= target_features\[200\]",
        ),
        (
            lambda: run(unlabeled=np.concatenate([UNLABELED, NONMEMBERS[:1]])),
            "nonmember_features and unlabeled_features share 1 rows",
        ),
        (lambda: run(unlabeled=TARGETS), "unlabeled_features and target_features share 200 rows"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
