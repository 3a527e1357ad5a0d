import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf.adapters import stateful_from_linen
from jaxinf.datasets import load_digits
from jaxinf.errors import InputError
from jaxinf.models import MLP, BatchNormCNN, cross_entropy, fit, load_checkpoints, predict

RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(23, 3)).astype(np.float32),
    "y": RNG.normal(size=23).astype(np.float32),
}
PARAMS = {"w": np.array([0.1, -0.2, 0.3], np.float32), "b": np.zeros((), np.float32)}
STATE = {"seen": np.zeros((), np.int32)}
OPTIMIZER = optax.adam(1e-1)


def loss(params, state, batch, *, train):
    residual = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return residual**2, {"seen": state["seen"] + residual.size}


def noisy_loss(params, state, batch, *, train, key):
    losses, state = loss(params, state, batch, train=train)
    return losses * jax.random.uniform(key, losses.shape), state


def shift(key, batch):
    return {**batch, "x": batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)}


def run(loss=loss, data=DATA, params=PARAMS, state=STATE, **changes):
    settings = {
        "optimizer": OPTIMIZER,
        "num_epochs": 4,
        "batch_size": 5,
        "key": jax.random.key(7),
        "progress": False,
    }
    return fit(loss, params, state, data, **settings | changes)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def train_digits(model, **changes):
    train, test = load_digits()
    variables = jax.jit(model.init)(jax.random.key(0), train["x"][:1])
    stateful_loss, (params, state) = stateful_from_linen(model, variables, cross_entropy)
    settings = {"batch_size": 64, "key": jax.random.key(1), "progress": False} | changes
    result = fit(stateful_loss, params, state, train, **settings)
    trained = {"params": result.params, **result.state}
    accuracy = (predict(model, trained, test["x"]).argmax(-1) == test["y"]).mean()
    return result, accuracy


@pytest.mark.parametrize(
    ("model", "num_epochs"), [(MLP((64,)), 15), (BatchNormCNN((16, 32)), 10)], ids=["mlp", "cnn"]
)
def test_digits_are_learnt(model, num_epochs):
    result, accuracy = train_digits(model, optimizer=optax.adam(5e-3), num_epochs=num_epochs)
    assert accuracy > 0.95
    assert result.losses.shape == (num_epochs,)
    assert result.losses[-1] < 0.2 * result.losses[0]
    if result.state:
        assert float(result.state["batch_stats"]["BatchNorm_0"]["mean"].std()) > 0


def test_full_batch_gradient_descent_is_the_formula():
    result = run(optimizer=optax.sgd(0.05), batch_size=23, num_epochs=3)
    design = np.c_[DATA["x"], np.ones(23)].astype(np.float64)
    theta, expected = np.append(PARAMS["w"], 0.0).astype(np.float64), []
    for _ in range(3):
        residual = design @ theta - DATA["y"]
        expected.append((residual**2).mean())
        theta -= 0.05 * 2 * design.T @ residual / 23
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)
    np.testing.assert_allclose(result.params["w"], theta[:3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.params["b"], theta[3], rtol=1e-4, atol=1e-6)


def test_each_epoch_is_a_new_order_without_repeats():
    seen = []

    def watch(params, state, batch, *, train):
        jax.debug.callback(lambda rows: seen.extend(rows.tolist()), batch["row"], ordered=True)
        return loss(params, state, batch, train=train)

    result = run(watch, {**DATA, "row": np.arange(23)}, num_epochs=2)
    jax.effects_barrier()
    # 23 examples in batches of 5: the last 3 of the order are left out
    epochs = seen[:20], seen[20:]
    assert len(seen) == 40
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert int(result.state["seen"]) == 40


def test_same_key_same_bits_other_key_other_bits():
    first = run(noisy_loss, augment=shift)
    assert_same(first, run(noisy_loss, augment=shift))
    assert not np.array_equal(
        first.losses, run(noisy_loss, augment=shift, key=jax.random.key(8)).losses
    )
    assert not np.array_equal(first.losses, run(noisy_loss).losses)
    assert not np.array_equal(first.losses, run(augment=shift).losses)


def test_the_callers_arrays_survive():
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = jax.tree.map(jnp.asarray, STATE)
    run(params=params, state=state)
    assert_same(params, PARAMS)
    assert_same(state, STATE)


class Killed(Exception):
    pass


@pytest.mark.parametrize("every", [1, 2])
def test_a_killed_run_continues_with_the_same_bits(tmp_path, monkeypatch, every):
    from jaxinf.models import train

    settings = {
        "loss": noisy_loss,
        "augment": shift,
        "num_epochs": 5,
        "checkpoint_every": every,
    }
    whole = run(**settings)
    save, saved = train.save_epoch, []

    def save_then_die(directory, epoch, tree):
        save(directory, epoch, tree)
        saved.append(epoch)
        if epoch >= 2:
            raise Killed

    monkeypatch.setattr(train, "save_epoch", save_then_die)
    with pytest.raises(Killed):
        run(**settings, checkpoints=tmp_path)
    assert saved[-1] == 2
    monkeypatch.setattr(train, "save_epoch", save)
    resumed = run(**settings, checkpoints=tmp_path)
    assert_same(whole, resumed)
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    # once finished, it is only read; and a longer run goes on from it
    assert_same(whole, run(**settings, checkpoints=tmp_path))
    longer = {**settings, "num_epochs": 6}
    assert_same(run(**longer), run(**longer, checkpoints=tmp_path))


def test_checkpoints_hold_the_parameters_of_their_epoch(tmp_path):
    run(checkpoints=tmp_path, num_epochs=5, checkpoint_every=2)
    stacked, epochs = load_checkpoints(tmp_path)
    assert epochs.tolist() == [2, 4, 5]
    for row, epoch in enumerate(epochs):
        shorter = run(num_epochs=int(epoch))
        assert_same(jax.tree.map(lambda leaf, row=row: leaf[row], stacked), shorter.params)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"batch_size": 4}, "program, batch_size"),
        ({"key": jax.random.key(8)}, "key"),
        ({"optimizer": optax.adam(2e-1)}, "program"),
        ({"data": {**DATA, "y": DATA["y"] + 1}}, "data"),
        ({"params": {**PARAMS, "b": np.ones((), np.float32)}}, "params"),
    ],
    ids=["batch_size", "key", "learning_rate", "data", "params"],
)
def test_a_folder_of_another_run_is_refused(tmp_path, changes, what):
    run(checkpoints=tmp_path, num_epochs=1)
    with pytest.raises(InputError, match=rf"holds another run \(other {what}\)"):
        run(checkpoints=tmp_path, num_epochs=1, **changes)


def test_batch_norm_network_resumes_with_the_same_bits(tmp_path):
    model, settings = BatchNormCNN((8,)), {"optimizer": optax.sgd(0.1, momentum=0.9)}
    whole, _ = train_digits(model, num_epochs=2, **settings)
    train_digits(model, num_epochs=1, checkpoints=tmp_path, **settings)
    resumed, _ = train_digits(model, num_epochs=2, checkpoints=tmp_path, **settings)
    assert_same(whole, resumed)


def test_the_same_training_compiles_once():
    from jaxinf.models.step import compiled_update

    run()
    before = compiled_update._cache_size()
    run(params=jax.tree.map(lambda leaf: leaf + 1, PARAMS))
    assert compiled_update._cache_size() == before


def unequal(batch):
    return {**batch, "y": batch["y"][:4]}


def infinite(batch):
    return {**batch, "x": np.where(np.arange(23)[:, None] == 6, np.inf, batch["x"])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {}}, "params holds no arrays"),
        ({"params": {**PARAMS, "b": np.zeros((), np.int32)}}, r"params\['b'\] is int32"),
        ({"params": {**PARAMS, "b": np.float32("nan")}}, r"params\['b'\] holds 1 NaN"),
        ({"data": unequal(DATA)}, "data has unequal leading axes"),
        ({"data": infinite(DATA)}, r"data\['x'\] holds 3 NaN or infinite.*first in example 6"),
        ({"num_epochs": 0}, "num_epochs is 0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0: it must be at least 1"),
        ({"batch_size": 24}, "batch_size is 24 but there are 23 examples"),
        ({"loss": lambda p, s, b, *, train: loss(p, s, b, train=train)[0]}, "must return a pair"),
        (
            {"loss": lambda p, s, b, *, train: (loss(p, s, b, train=train)[0].mean(), s)},
            r"loss returned float32\[\] for a batch of 5: it must be float\[5\], one loss per",
        ),
        (
            {"loss": lambda p, s, b, *, train: (jnp.arange(5), s)},
            r"loss returned int32\[5\] for a batch of 5",
        ),
        (
            {"loss": lambda p, s, b, *, train: (b["y"], {"seen": s["seen"] + 1.0})},
            "state of another structure, shape or dtype",
        ),
        ({"loss": lambda p, s, b, *, train: (b["y"], {})}, "state of another structure"),
    ],
)
def test_checks_before_training(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(**changes, checkpoints=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_divergence_and_bad_labels_are_reported(tmp_path):
    def classify(params, state, batch, *, train):
        return cross_entropy(batch["x"] @ params["w"], batch), state

    labels = np.zeros(23, np.int32)
    labels[2] = -1
    with pytest.raises(InputError, match=r"mean loss of epoch 0 is nan: .* labels lie in 0"):
        run(
            classify,
            {"x": DATA["x"], "y": labels},
            {"w": np.zeros((3, 2), np.float32)},
            checkpoints=tmp_path,
            batch_size=23,
        )
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoints(tmp_path)


def test_progress_goes_to_stderr(capsys):
    run(progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "16/16" in captured.err
