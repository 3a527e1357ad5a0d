"""The EDM: its scalings against the paper, its sampler against an exact flow, training, files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf.errors import InputError
from jaxinf.models.diffusion import (
    EDM,
    fit_edm,
    init_params,
    load_edm,
    noise_schedule,
    sample,
    save_edm,
    weighted_error,
)
from jaxinf.models.diffusion.edm import loss_weight, scalings
from jaxinf.models.diffusion.train import with_average

MODEL = EDM((4, 4, 1), num_classes=2, widths=(8,))


class Perfect(EDM):
    """The perfect denoiser of data N(0, sigma_data²), an EDM whose network gives zeros."""

    def setup(self):
        """No network."""

    def __call__(self, x, sigma, labels):
        """The skip connection alone."""
        return scalings(sigma, self.sigma_data).skip[:, None, None, None] * x


PERFECT = Perfect((4, 4, 1), num_classes=2)


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, jax.random.key(0))


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 4, 4, 1)).astype(np.float32)
    return {"x": x, "y": (np.arange(count) % 2).astype(np.int32)}


def test_scalings_keep_input_target_and_loss_at_unit_scale():
    sigma = jnp.array([0.01, 0.3, 5.0, 80.0])
    s = scalings(sigma, 0.5)
    # Var[c_in (y + n)] = 1; the target (y - c_skip (y + n)) / c_out has variance 1
    np.testing.assert_allclose(s.into**2 * (0.25 + sigma**2), 1, rtol=1e-5)
    target = ((1 - s.skip) ** 2 * 0.25 + s.skip**2 * sigma**2) / s.out**2
    np.testing.assert_allclose(target, 1, rtol=1e-4)
    np.testing.assert_allclose(loss_weight(sigma, 0.5) * s.out**2, 1, rtol=1e-5)
    np.testing.assert_allclose(s.noise, np.log(sigma) / 4, rtol=1e-5)


def test_an_untrained_denoiser_is_its_skip_connection_and_a_class_out_of_range_is_nan(params):
    batch, sigma = images(3), jnp.array([0.1, 1.0, 10.0])
    noise = np.ones((3, 4, 4, 1), np.float32)
    error = jax.jit(functools.partial(weighted_error, MODEL))
    found = error(params, batch["x"], noise, sigma, batch["y"])
    wide = sigma[:, None, None, None]
    skip = 0.25 / (wide**2 + 0.25)
    squares = ((skip * (batch["x"] + wide * noise) - batch["x"]) ** 2).mean((1, 2, 3))
    want = (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * squares
    np.testing.assert_allclose(found, want, rtol=1e-4)
    unknown = error(params, batch["x"], noise, sigma, np.array([0, 2, -1], np.int32))
    # no other row is touched
    assert np.isnan(unknown).tolist() == [False, True, True]
    assert unknown[0] == found[0]


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler", 1)])
def test_the_sampler_follows_the_exact_flow_of_gaussian_data(method, order):
    # x(0) = x(σ) · sigma_data / sqrt(σ² + sigma_data²)
    key, labels = jax.random.key(3), np.array([0, 1])
    keys = [jax.random.fold_in(key, k) for k in range(2)]
    start = 2.0 * np.stack([jax.random.normal(k, PERFECT.image_shape) for k in keys])
    want = np.clip(start * 0.5 / np.sqrt(4.0 + 0.25), -1, 1)
    errors = []
    for steps in (16, 32):
        found = sample(PERFECT, {}, labels, key, num_steps=steps, method=method, sigma_max=2.0)
        errors.append(np.abs(found - want).max())
    assert errors[0] / errors[1] > 2**order * 0.8
    assert errors[1] < (5e-3 if method == "heun" else 5e-2)


def test_images_depend_on_their_own_noise_and_not_on_how_many_there_are():
    few = sample(PERFECT, {}, np.array([1]), jax.random.key(1), num_steps=4)
    many = sample(PERFECT, {}, np.array([1, 1, 0]), jax.random.key(1), num_steps=4)
    np.testing.assert_allclose(few[0], many[0], atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 0.01


def test_the_schedule_falls_from_one_end_to_the_other():
    levels = noise_schedule(5, sigma_min=0.1, sigma_max=3.0)
    np.testing.assert_allclose(levels[[0, -2, -1]], [3.0, 0.1, 0.0], rtol=1e-5)
    assert (np.diff(levels) < 0).all()


def test_the_average_of_the_weights_is_the_recursion():
    optimizer = with_average(optax.sgd(0.5), 0.9)
    weights, state = jnp.array([1.0]), optimizer.init(jnp.array([1.0]))
    average, current = 1.0, 1.0
    for n in range(4):
        updates, state = optimizer.update(jnp.array([1.0]), state, weights)
        weights = optax.apply_updates(weights, updates)
        current -= 0.5
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * current
    np.testing.assert_allclose(state.average, [average], rtol=1e-6)


def test_training_lowers_the_loss_repeats_itself_and_survives_a_save(params, tmp_path):
    data = images(2)
    options = {"num_steps": 60, "batch_size": 16, "learning_rate": 3e-3, "ema_decay": 0.5}
    train = lambda: fit_edm(MODEL, params, data, key=jax.random.key(2), progress=False, **options)
    tuned, losses = train()
    assert losses.shape == (60,)
    assert losses[-10:].mean() < 0.7 * losses[:5].mean()
    for a, b in zip(jax.tree.leaves(tuned), jax.tree.leaves(train()[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    model, loaded = load_edm(save_edm(tmp_path / "model", MODEL, tuned))
    assert model == MODEL
    assert jax.tree.structure(loaded) == jax.tree.structure(tuned)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(tuned), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="exists"):
        save_edm(tmp_path / "model", MODEL, tuned)
    (tmp_path / "model" / "edm.json").write_text('{"widths": [16]}')
    with pytest.raises(InputError, match="not the settings"):
        load_edm(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([0, 2], np.int32)}, r"data\['y'\]\[1\] is 2, out of range for 2 classes"),
        ({"x": np.zeros((2, 5, 5, 1), np.float32)}, r"shape \(5, 5, 1\), but the model's are"),
        ({"x": np.zeros((2, 4, 4, 1), np.uint8)}, "scale the images to floats"),
        ({"x": np.zeros((0, 4, 4, 1), np.float32), "y": np.zeros(0, np.int32)}, "is empty"),
    ],
)
def test_bad_training_images_are_refused(params, change, message):
    with pytest.raises(InputError, match=message):
        fit_edm(MODEL, params, images(2) | change, num_steps=1, batch_size=1, key=jax.random.key(0))


def test_bad_settings_are_refused(params):
    key = jax.random.key(0)
    with pytest.raises(InputError, match="cannot be halved 2 times"):
        init_params(EDM((6, 6, 1), 2, widths=(8, 8, 8)), key)
    with pytest.raises(InputError, match="multiples of 8"):
        init_params(EDM((4, 4, 1), 2, widths=(6,)), key)
    with pytest.raises(InputError, match=r"labels\[0\] is 7"):
        sample(MODEL, params, np.array([7]), key)
    with pytest.raises(InputError, match="one class per image"):
        sample(MODEL, params, np.zeros(0, int), key)
    with pytest.raises(InputError, match="heun"):
        sample(MODEL, params, np.array([0]), key, method="ddim")
    with pytest.raises(InputError, match="0 < min < max"):
        noise_schedule(4, sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(InputError, match="ema_decay"):
        fit_edm(MODEL, params, images(2), num_steps=1, batch_size=1, key=key, ema_decay=1.0)
    with pytest.raises(InputError, match="num_steps"):
        fit_edm(MODEL, params, images(2), num_steps=0, batch_size=1, key=key)
