"""Influence on generated images: the loss over fixed draws, and whom it finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import ndtr

from jaxinf.applications.diffusion import (
    attribute_generated,
    contrast_with,
    denoising_loss,
    draw_noise,
    loss_fall,
)
from jaxinf.errors import InputError
from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    group_queries,
    normalise_by_loss,
)
from jaxinf.models.diffusion import EDM, init_params

MODEL = EDM((4, 4, 1), num_classes=2, widths=(8,))
SHAPE = MODEL.image_shape


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, *SHAPE)).astype(np.float32)
    return {"x": x, "y": (np.arange(count) % 2).astype(np.int32)}


@pytest.fixture(scope="module")
def params():
    """Weights without a zero layer, drawn without compiling the initialisation."""
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


def small_error(w, x, noise, sigma, labels):
    """A denoiser of one layer, which compiles in no time."""
    noisy = (x + sigma[:, None, None, None] * noise).reshape(len(x), -1)
    output = jnp.tanh(noisy @ w["kernel"] + jnp.asarray(w["bias"])[labels])
    return jnp.mean((output - x.reshape(len(x), -1)) ** 2, axis=1)


SMALL = {
    "kernel": np.random.default_rng(4).normal(size=(16, 16)).astype(np.float32) / 4,
    "bias": np.zeros((2, 16), np.float32),
}


def test_the_loss_is_the_mean_over_the_draws_each_noise_at_its_own_level(params):
    draws, batch = draw_noise(jax.random.key(2), 3, SHAPE), images(2)
    loss = jax.jit(lambda draws: denoising_loss(MODEL, draws)(params, batch))
    # one draw three times over is that draw's error: no order of rows can go wrong in it
    each = [loss(jax.tree.map(lambda a, t=t: a[np.full(3, t)], draws)) for t in range(3)]
    np.testing.assert_allclose(loss(draws), np.mean(each, axis=0), rtol=1e-5)
    assert np.std(each, axis=0).min() > 1e-3


def test_levels_are_stratified_lognormal():
    draws = draw_noise(jax.random.key(0), 200, (1, 1, 1), p_mean=-0.5, p_std=0.8)
    logs = np.log(np.asarray(draws.sigma))
    # 200 independent draws would miss the mean by 0.06 on average; one per stratum does not
    assert abs(logs.mean() + 0.5) < 0.01
    assert abs(logs.std() - 0.8) < 0.02
    stratum = np.floor(200 * ndtr((logs + 0.5) / 0.8)).astype(int)
    np.testing.assert_array_equal(stratum, np.arange(200))


def test_common_numbers_take_the_noise_out_of_differences():
    """The variance of a difference, over draws: a small share of what independent draws give."""
    batch = images(4)
    after = jax.tree.map(lambda p: p * 1.01, SMALL)

    def change(key, draws):
        """Change of the loss by common numbers, and by new ones after the step."""
        before, again = (
            denoising_loss(small_error, draw_noise(k, draws, SHAPE)) for k in jax.random.split(key)
        )
        losses = before(SMALL, batch)
        return losses - before(after, batch), losses - again(after, batch)

    variance = {}
    for draws in (2, 8):
        found = jax.jit(jax.vmap(functools.partial(change, draws=draws)))(
            jax.random.split(jax.random.key(5), 64)
        )
        variance[draws] = [float(jnp.var(each, axis=0).mean()) for each in found]
        assert variance[draws][0] < variance[draws][1] / 20
    # four times the draws: about a quarter of the variance
    assert variance[8][0] < variance[2][0] / 2
    assert variance[8][1] < variance[2][1] / 2


def test_scores_are_the_change_of_the_loss_over_the_same_draws():
    loss = denoising_loss(small_error, draw_noise(jax.random.key(2), 3, SHAPE))
    train, query = images(5, seed=1), images(1, seed=2)
    found = attribute_generated(
        forward_inf(loss, optimizer=optax.sgd(0.1)), SMALL, query, train, progress=False
    )
    grads = jax.jit(jax.grad(lambda p: loss(p, query).sum()))(SMALL)
    after = jax.tree.map(lambda p, g: p - 0.1 * g, SMALL, grads)
    losses = jax.jit(loss)
    np.testing.assert_allclose(
        found.scores[0], losses(SMALL, train) - losses(after, train), rtol=1e-3, atol=1e-6
    )


def own_scores(model, params, methods):
    """Scores of six images on the third of them, by each method."""
    loss = denoising_loss(model, draw_noise(jax.random.key(2), 3, SHAPE))
    train = images(6, seed=1)
    query = {name: a[2:3] for name, a in train.items()}
    found = {
        name: attribute_generated(make(loss), params, query, train, progress=False).scores[0]
        for name, make in methods.items()
    }
    assert {name: int(scores.argmax()) for name, scores in found.items()} == dict.fromkeys(found, 2)
    return found


def test_an_image_is_its_own_first_proponent():
    methods = {
        "jvp / loss": lambda loss: normalise_by_loss(forward_inf_jvp(loss, scorer="jvp"), loss),
        "cos": lambda loss: grad_cos(loss, scorer="gradients"),
    }
    assert own_scores(small_error, SMALL, methods)["cos"][2] == pytest.approx(1, rel=1e-5)


def test_the_fall_of_the_loss_is_that_and_the_same_for_every_query():
    loss = denoising_loss(small_error, draw_noise(jax.random.key(2), 3, SHAPE))
    train, after = images(5, seed=1), jax.tree.map(lambda p: 0.9 * p, SMALL)
    found = attribute_generated(
        loss_fall(loss, SMALL), after, images(2, seed=3), train, progress=False
    )
    old, new = (jax.jit(loss)(params, train) for params in (SMALL, after))
    np.testing.assert_allclose(found.scores, np.tile((old - new) / old, (2, 1)), rtol=1e-4)


def test_a_contrast_is_the_difference_of_two_rows():
    loss = denoising_loss(small_error, draw_noise(jax.random.key(2), 3, SHAPE))
    train, made, plain = images(5, seed=1), images(2, seed=2), images(2, seed=3)
    method = grad_dot(loss)
    run = lambda method, queries, **options: attribute_generated(
        method, SMALL, queries, train, progress=False, diagnostics=False, **options
    )
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), made, plain)
    rows = run(method, both).scores
    contrast = contrast_with(method, plain)
    found = run(contrast, made, top_k=2)
    np.testing.assert_allclose(
        found.top_scores, np.sort(rows[:2] - rows[2:])[:, :-3:-1], rtol=1e-5, atol=1e-7
    )
    with pytest.raises(InputError, match="1 queries of up to 1 images, 2 images to compare with"):
        run(contrast, images(1))
    with pytest.raises(InputError, match="no groups"):
        contrast.prepare(SMALL, group_queries(made))
    with pytest.raises(InputError, match="plain is empty"):
        contrast_with(method, images(0))


@pytest.mark.slow
def test_forward_and_reverse_mode_agree_on_an_edm(params):
    methods = {
        "jvp": lambda loss: forward_inf_jvp(loss, scorer="jvp"),
        "dot": lambda loss: grad_dot(loss, scorer="gradients"),
    }
    found = own_scores(MODEL, params, methods)
    np.testing.assert_allclose(found["jvp"], found["dot"] * 1e-2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("generated", "train", "message"),
    [
        (
            {"x": np.zeros((1, 5, 5, 1), np.float32), "y": np.zeros(1, np.int32)},
            {},
            r"generated images are \[5, 5, 1\] but the training images \[4, 4, 1\]: resize",
        ),
        ({}, {name: a[:0] for name, a in images(1).items()}, "train is empty"),
        ({name: a[:0] for name, a in images(1).items()}, {}, "generated is empty"),
        ({"y": np.array([2], np.int32)}, {}, r"generated\['y'\]\[0\] is 2, out of range for 2"),
        ({}, {"y": np.array([0, 1, -1], np.int32)}, r"train\['y'\]\[2\] is -1, out of range"),
        ({}, {"x": np.zeros((3, *SHAPE), np.uint8)}, "float images"),
        ({"z": np.zeros(1)}, {}, "generated must be a dict with x"),
    ],
)
def test_bad_input_is_refused_in_one_line(generated, train, message):
    loss = denoising_loss(small_error, draw_noise(jax.random.key(2), 3, SHAPE))
    with pytest.raises(InputError, match=message) as raised:
        attribute_generated(
            forward_inf_jvp(loss), {}, images(1) | generated, images(3) | train, num_classes=2
        )
    assert "\n" not in str(raised.value)


def test_bad_draws_are_refused():
    with pytest.raises(InputError, match="num_draws"):
        draw_noise(jax.random.key(0), 0, SHAPE)
    with pytest.raises(InputError, match="p_std"):
        draw_noise(jax.random.key(0), 2, SHAPE, p_std=-1.0)
    with pytest.raises(InputError, match="key is int"):
        draw_noise(0, 2, SHAPE)
