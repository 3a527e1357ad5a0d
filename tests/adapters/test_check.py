import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.adapters import check_loss_shape, check_per_example
from jaxinf.errors import InputError

W = np.ones(2, np.float32)
BATCH = {"x": np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)}


def linear(w, batch):
    return (batch["x"] @ w) ** 2


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda w, b: linear(w, b).mean(), r"shape \(6,\), not \(\): drop the mean"),
        (lambda w, b: linear(w, b)[:, None], r"not \(6, 1\): reduce every axis but the first"),
        (lambda w, b: linear(w, b)[:3], r"not \(3,\)"),
        (lambda w, b: (linear(w, b), {}), "not a tuple: return the losses alone"),
        (lambda w, b: linear(w, b).astype(int), "floating-point losses, not int32"),
    ],
)
@pytest.mark.parametrize("check", [check_loss_shape, check_per_example])
def test_wrong_shapes_and_dtypes_are_named(check, loss_fn, message):
    with pytest.raises(InputError, match=message):
        check(loss_fn, W, BATCH)


def test_the_shape_is_known_while_tracing_and_nothing_runs():
    def run(w, batch):
        def loss_fn(w, batch):
            jax.debug.callback(lambda: ran.append(1))
            return linear(w, batch)

        losses = check_loss_shape(loss_fn, w, batch)
        return jnp.zeros(losses.shape, losses.dtype)

    ran = []
    assert jax.jit(run)(W, BATCH).shape == (6,)
    assert not ran


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_passes_per_example_losses(rows):
    check_per_example(linear, W, {"x": BATCH["x"][:rows]})


@pytest.mark.parametrize("rows", [2, 3, 6])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.tree_util.Partial])
def test_catches_a_loss_that_looks_at_its_company(rows, wrap):
    def normalised(w, batch):
        x = batch["x"]
        return ((x - x.mean(0, keepdims=True)) / (x.std(0, keepdims=True) + 1e-3)) @ w

    with pytest.raises(InputError, match=r"the loss of row \d changes by .*\(train=False\)"):
        check_per_example(wrap(normalised), W, {"x": BATCH["x"][:rows]})


def test_the_tolerance_follows_the_losses_dtype():
    def leaking(size, dtype):
        return lambda w, b: (1.0 + size * b["x"].mean() * jnp.ones(6)).astype(dtype)

    batch = {"x": BATCH["x"] + 1}
    check_per_example(leaking(1e-6, jnp.float32), W, batch)
    with pytest.raises(InputError):
        check_per_example(leaking(1e-2, jnp.float32), W, batch)
    check_per_example(leaking(1e-2, jnp.bfloat16), W, batch)
    check_per_example(leaking(1e-2, jnp.float32), W, batch, tolerance=0.1)


def test_catches_nan_and_batches_without_rows():
    with pytest.raises(InputError, match="NaN or infinite of 3 entries, first in example 0"):
        check_per_example(lambda w, b: jnp.log(-linear(w, b)), W, BATCH)
    with pytest.raises(InputError, match="unequal leading axes"):
        check_loss_shape(linear, W, {"x": BATCH["x"], "y": np.zeros(5, np.int32)})
