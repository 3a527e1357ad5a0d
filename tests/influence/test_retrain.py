"""Many models of many subsets: the same whatever the chunks, the devices and the interruptions."""

import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import relative

from jaxinf.adapters import stateful_from_linen
from jaxinf.engine import data_mesh
from jaxinf.errors import InputError
from jaxinf.influence.ground_truth import draw_subsets, retrain_on_subsets, sgd_trainer
from jaxinf.models import MLP, cross_entropy, fit

N, KEY = 24, jax.random.key(7)
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(N, 5)).astype(np.float32),
    "y": (np.arange(N) % 3).astype(np.int32),
}
MODULE = MLP((6,), 3)
SUBSETS = draw_subsets(7, N, seed=0)


def init(key):
    return MODULE.init(key, DATA["x"][:1])["params"], {}


LOSS = stateful_from_linen(MODULE, {"params": init(KEY)[0]}, cross_entropy)[0]
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def make_trainer(outputs=None):
    return sgd_trainer(
        LOSS, init, DATA, optimizer=OPTIMIZER, num_epochs=3, batch_size=4, outputs=outputs
    )


def logits(params, state):
    return {"logits": MODULE.apply({"params": params}, DATA["x"])}


@pytest.fixture(scope="module")
def trainer():
    return make_trainer(logits)


@pytest.fixture(scope="module")
def expected(trainer):
    """One model at a time, without the library's vmap, chunks or stores."""
    alone = jax.jit(trainer)
    rows = [np.flatnonzero(mask).astype(np.int32) for mask in SUBSETS]
    made = [alone(jax.random.fold_in(KEY, s), r)["logits"] for s, r in enumerate(rows)]
    return np.stack(made)


@pytest.mark.parametrize(
    "options",
    [
        {"models_at_once": 7},
        {"models_at_once": 3},
        {"models_at_once": 1, "mesh": data_mesh},
        {"traced": False},
        {},
    ],
    ids=["all", "three at once", "eight devices", "not traced", "by memory"],
)
def test_results_do_not_depend_on_how_models_are_put_together(trainer, expected, options):
    options = {name: value() if callable(value) else value for name, value in options.items()}
    train = jax.jit(trainer) if options.get("traced") is False else trainer
    found = retrain_on_subsets(train, SUBSETS, key=KEY, progress=False, **options)
    assert found["logits"].shape == (7, N, 3)
    assert relative(found["logits"], expected) < 1e-5


def test_subsets_of_several_sizes_keep_their_order():
    masks = np.tril(np.ones((5, 5), bool))[[3, 0, 4, 1, 2]]
    total = lambda key, rows: {"n": jnp.asarray(rows.shape[0]), "sum": rows.sum()}
    found = retrain_on_subsets(total, masks, key=KEY, models_at_once=2, progress=False)
    np.testing.assert_array_equal(found["n"], masks.sum(axis=1))
    np.testing.assert_array_equal(found["sum"], masks @ np.arange(5))


def test_training_on_everything_is_what_fit_does():
    params, _ = jax.jit(make_trainer())(KEY, jnp.arange(N))
    init_key, run_key = jax.random.split(KEY)
    result = fit(
        LOSS,
        init(init_key)[0],
        {},
        DATA,
        optimizer=OPTIMIZER,
        num_epochs=3,
        batch_size=4,
        key=run_key,
        progress=False,
    )
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(result.params), strict=True):
        assert relative(ours, theirs) < 1e-5


def test_examples_outside_the_subset_have_no_say():
    rows = jnp.flatnonzero(SUBSETS[0])
    spoilt = DATA | {"x": np.where(SUBSETS[0][:, None], DATA["x"], 1e6).astype(np.float32)}
    other = sgd_trainer(LOSS, init, spoilt, optimizer=OPTIMIZER, num_epochs=3, batch_size=4)
    params, _ = jax.jit(other)(KEY, rows)
    kept, _ = jax.jit(make_trainer())(KEY, rows)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, trainer, expected):
    calls = []

    def train(key, rows):
        if len(calls) == 4:
            raise Killed
        calls.append(len(rows))
        return jitted(key, rows)

    jitted = jax.jit(trainer)
    run = lambda: retrain_on_subsets(
        train, SUBSETS, key=KEY, traced=False, store=tmp_path / "s", progress=False
    )
    with pytest.raises(Killed):
        run()
    calls.clear()
    found = run()
    assert len(calls) == 3
    assert relative(found["logits"], expected) < 1e-5


def test_finished_chunks_are_not_trained_again(tmp_path, trainer):
    run = lambda: retrain_on_subsets(
        trainer, SUBSETS, key=KEY, models_at_once=3, store=tmp_path / "s", progress=False
    )
    first = run()
    assert len(list((tmp_path / "s").glob("chunk_*"))) == 3
    shutil.rmtree(tmp_path / "s" / "chunk_000001")
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("chunk_*")}
    np.testing.assert_array_equal(run()["logits"], first["logits"])
    now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("chunk_*")}
    assert {name: now[name] for name in times} == times
    assert len(now) == 3


def test_another_run_is_refused(tmp_path, trainer):
    run = lambda key, subsets, at_once=3: retrain_on_subsets(
        trainer, subsets, key=key, models_at_once=at_once, store=tmp_path / "s", progress=False
    )
    run(KEY, SUBSETS)
    with pytest.raises(InputError, match="other data_or_key"):
        run(jax.random.key(8), SUBSETS)
    with pytest.raises(InputError, match="other subsets"):
        run(KEY, ~SUBSETS)
    with pytest.raises(InputError, match="other models_at_once"):
        run(KEY, SUBSETS, 2)


def test_memory_decides_how_many_train_together(tmp_path):
    big = lambda key, rows: jnp.zeros(1000) + rows.sum()
    for name, memory in {"little": 1, "some": 3 * 4000, "much": 2**30}.items():
        retrain_on_subsets(
            big, SUBSETS, key=KEY, memory_bytes=memory, store=tmp_path / name, progress=False
        )
    record = lambda name: json.loads((tmp_path / name / "run.json").read_text())["models_at_once"]
    assert record("little") == 1
    assert 1 <= record("some") <= 3
    assert record("much") == len(SUBSETS)


def test_batch_norm_and_random_init_differ_by_key():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))

    def start(key):
        variables = Net().init(key, DATA["x"][:1])
        return variables["params"], {"batch_stats": variables["batch_stats"]}

    params, state = start(KEY)
    loss, _ = stateful_from_linen(Net(), {"params": params, **state}, cross_entropy)
    train = sgd_trainer(loss, start, DATA, optimizer=OPTIMIZER, num_epochs=1, batch_size=8)
    same = np.stack([SUBSETS[0], SUBSETS[0]])
    params, state = retrain_on_subsets(train, same, key=KEY, models_at_once=2, progress=False)
    kernel = params["Dense_0"]["kernel"]
    assert relative(kernel[0], kernel[1]) > 0.1
    assert np.abs(state["batch_stats"]["BatchNorm_0"]["mean"]).min() > 0


def test_draws_are_of_one_size_and_even():
    masks = draw_subsets(400, 20, fraction=0.25, seed=1)
    assert (masks.sum(axis=1) == 5).all()
    np.testing.assert_allclose(masks.mean(axis=0), 0.25, atol=0.1)
    np.testing.assert_array_equal(masks, draw_subsets(400, 20, fraction=0.25, seed=1))


ONE_CLASS = np.array([DATA["y"] < 3, DATA["y"] == 1])


@pytest.mark.parametrize(
    ("subsets", "options", "message"),
    [
        (ONE_CLASS, {"labels": DATA["y"]}, "subset 1 has no example of class 0 .*allow_missing"),
        (ONE_CLASS, {"labels": DATA["y"][:5]}, "labels are"),
        (ONE_CLASS.astype(int), {}, "bool mask"),
        (np.zeros((1, N), bool), {}, "subset 0 is empty"),
        (SUBSETS, {"models_at_once": 0}, "models_at_once is 0"),
    ],
)
def test_bad_subsets_are_refused_in_one_line(trainer, subsets, options, message):
    with pytest.raises(InputError, match=message) as caught:
        retrain_on_subsets(trainer, subsets, key=KEY, progress=False, **options)
    assert "\n" not in str(caught.value)


def wrapped(trainer, key, rows):
    return trainer(key, rows)["logits"]


@pytest.mark.parametrize(
    "wrap",
    [lambda t: t, jax.jit, lambda t: Partial(wrapped, t), lambda t: jax.jit(Partial(wrapped, t))],
    ids=["itself", "compiled", "within another", "within another, compiled"],
)
def test_the_trainer_knows_its_classes(wrap):
    data = {"x": DATA["x"], "y": DATA["y"] % 2}
    settings = {"optimizer": OPTIMIZER, "num_epochs": 1, "batch_size": 4, "outputs": logits}
    trainer = sgd_trainer(LOSS, init, data, **settings)
    lacking = np.array([data["y"] < 2, data["y"] == 1])
    run = lambda **options: retrain_on_subsets(
        wrap(trainer), lacking, key=KEY, models_at_once=1, progress=False, **options
    )
    with pytest.raises(InputError, match=r"subset 1 has no example of class 0 .*allow_missing"):
        run()
    # labels of one's own come first
    with pytest.raises(InputError, match="subset 1 has no example of class 7 "):
        run(labels=np.where(data["y"] == 1, 1, 7))
    assert jax.tree.leaves(run(allow_missing_classes=True))[0].shape == (2, N, 3)


@pytest.mark.parametrize(
    "data",
    [
        {"x": DATA["x"], "y": np.float32(DATA["y"] % 2)},
        {"x": DATA["x"], "y": np.tile(DATA["y"][:, None] % 2, (1, 2))},
        DATA,
        {"x": DATA["x"], "y": np.arange(N)},
        {"x": DATA["x"], "y": np.zeros(5, int)},
        {"x": DATA["x"]},
        DATA["x"],
        (DATA["x"], DATA["y"] % 2),
    ],
    ids=[
        "regression",
        "tokens",
        "few of each",
        "numbers",
        "another length",
        "no y",
        "an array",
        "a tuple",
    ],
)
def test_what_is_no_class_is_not_looked_at(data):
    train = Partial(lambda data, key, rows: jnp.asarray(rows.shape[0]), data)
    found = retrain_on_subsets(train, ONE_CLASS, key=KEY, models_at_once=1, progress=False)
    np.testing.assert_array_equal(found, ONE_CLASS.sum(axis=1))


def test_a_missing_class_can_be_allowed():
    found = retrain_on_subsets(
        lambda key, rows: rows.sum(),
        ONE_CLASS,
        key=KEY,
        labels=DATA["y"],
        allow_missing_classes=True,
        models_at_once=1,
        progress=False,
    )
    np.testing.assert_array_equal(found, ONE_CLASS @ np.arange(N))


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_a_fraction_that_leaves_none_or_all_is_refused(fraction):
    with pytest.raises(InputError, match="fraction is"):
        draw_subsets(3, 10, fraction=fraction, seed=0)


@pytest.mark.parametrize("options", [{"num_epochs": 0}, {"batch_size": 0}])
def test_bad_training_settings_are_refused(options):
    settings = {"optimizer": OPTIMIZER, "num_epochs": 1, "batch_size": 2} | options
    with pytest.raises(InputError, match="must be at least 1"):
        sgd_trainer(LOSS, init, DATA, **settings)
