"""Winograd's convolution against XLA's own and against float64, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxinf.models import winograd as module
from jaxinf.models.winograd import convolve, winograd


def direct(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)


def drawn(shape, channels, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, shape[-1], channels)) / np.sqrt(9 * shape[-1])
    return rng.normal(size=shape).astype(dtype), kernel.astype(dtype)


def relative(found, wanted):
    return np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted)


# 7 images cannot be cut into chunks of equal size but one: the last shape makes many chunks
@pytest.mark.parametrize("shape", [(3, 8, 8, 5), (7, 8, 12, 6), (7, 16, 16, 256)])
def test_it_is_the_convolution(shape):
    x, kernel = drawn(shape, 4)
    wanted = np.asarray(direct(x, kernel))
    assert relative(winograd(x, kernel), wanted) < 2e-6


def test_in_float64_to_its_precision(x64):
    x, kernel = map(jnp.asarray, drawn((2, 8, 8, 16), 8, dtype=np.float64))
    assert relative(winograd(x, kernel), np.asarray(direct(x, kernel))) < 1e-14


def test_its_derivatives_and_its_vmap_over_kernels():
    x, kernel = drawn((2, 8, 8, 4), 3)
    out = lambda fn: lambda x, k: jnp.sum(jnp.sin(fn(x, k)))
    for found, wanted in zip(
        jax.grad(out(winograd), argnums=(0, 1))(x, kernel),
        jax.grad(out(direct), argnums=(0, 1))(x, kernel),
        strict=True,
    ):
        assert relative(found, np.asarray(wanted)) < 1e-5
    tangents = drawn(x.shape, 3, seed=1)
    assert (
        relative(
            jax.jvp(winograd, (x, kernel), tangents)[1],
            np.asarray(jax.jvp(direct, (x, kernel), tangents)[1]),
        )
        < 1e-5
    )
    kernels = np.stack([kernel, 2 * kernel])
    found = jax.vmap(winograd, in_axes=(None, 0))(x, kernels)
    assert relative(found[1], 2 * np.asarray(direct(x, kernel))) < 2e-6


@pytest.mark.parametrize(
    ("height", "channels", "size", "strides", "padding", "used"),
    [
        (8, 64, 3, (1, 1), ((1, 1), (1, 1)), True),
        (4, 64, 3, (1, 1), ((1, 1), (1, 1)), True),
        (2, 64, 3, (1, 1), ((1, 1), (1, 1)), False),
        (9, 64, 3, (1, 1), ((1, 1), (1, 1)), False),
        (8, 16, 3, (1, 1), ((1, 1), (1, 1)), False),
        (8, 64, 1, (1, 1), ((0, 0), (0, 0)), False),
        (8, 64, 3, (2, 2), ((1, 1), (1, 1)), False),
        (8, 64, 3, (1, 1), "VALID", False),
    ],
)
def test_it_stands_in_only_where_it_computes_the_same(
    monkeypatch, height, channels, size, strides, padding, used
):
    calls = []
    monkeypatch.setattr(module, "winograd", lambda x, k: calls.append(1) or winograd(x, k))
    x, _ = drawn((1, height, height, channels), 1)
    kernel = np.ones((size, size, channels, 64), np.float32)
    options = {
        "lhs_dilation": (1, 1),
        "rhs_dilation": (1, 1),
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        "feature_group_count": 1,
    }
    found = convolve(x, kernel, strides, padding, **options)
    wanted = lax.conv_general_dilated(x, kernel, strides, padding, **options)
    assert relative(found, np.asarray(wanted)) < 2e-6
    assert bool(calls) == used
