"""Losses that use their parameters in every way that ghost products are held to, and more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Case(NamedTuple):
    """A per-example loss, its parameters and B = 5 examples, in float64 where it is on."""

    loss: Any
    params: Any
    batch: Any


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def dense(layer, x):
    return x @ layer["w"] + layer["b"]


def mlp():
    params = [{"w": draw(4, 5), "b": draw(5)}, {"w": draw(5, 3), "b": draw(3)}]

    def loss(params, batch):
        hidden = jax.nn.relu(dense(params[0], batch["x"]))
        return jnp.sum(jnp.square(dense(params[1], hidden)), axis=1)

    return Case(loss, params, {"x": draw(5, 4, seed=1)})


def relu_at_zero():
    """ReLU's rule says 0 at 0; the maximum that it is made of says 1/2."""
    case = mlp()
    params = jax.tree.map(lambda a: a, case.params)
    params[0] = {"w": params[0]["w"].at[:, 0].set(0), "b": params[0]["b"].at[0].set(0)}
    return case._replace(params=params)


def convolution():
    params = {
        "grouped": draw(3, 2, 2, 6),
        "strided": draw(2, 2, 6, 4),
        "dilated": draw(4, 3, 2, 2),
        "spread": draw(3, 4, 2),
        "scale": draw(6),
        "bias": draw(6, seed=3),
    }

    def loss(params, batch):
        conv = lambda x, w, strides, padding, dims, **more: lax.conv_general_dilated(
            x, w, strides, padding, dimension_numbers=dims, **more
        )
        x = batch["x"]
        nhwc, nchw = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
        x = conv(x, params["grouped"], (1, 1), "SAME", nhwc, feature_group_count=2)
        # group normalisation, with scale and shift
        grouped = x.reshape(*x.shape[:-1], 2, 3)
        mean = grouped.mean((1, 2, 4), keepdims=True)
        grouped = (grouped - mean) / jnp.sqrt(grouped.var((1, 2, 4), keepdims=True) + 0.1)
        x = jnp.tanh(grouped.reshape(x.shape) * params["scale"] + params["bias"])
        x = conv(x, params["strided"], (2, 1), [(1, 0), (0, 2)], nhwc)
        x = jnp.transpose(x, (0, 3, 1, 2))
        x = conv(
            x, params["dilated"].transpose(0, 1, 3, 2)[:, :2], (1, 1), [(1, 2), (0, 1)], nchw,
            rhs_dilation=(2, 1), lhs_dilation=(1, 2), feature_group_count=2,
        )  # fmt: skip
        line = x.mean(3)
        line = conv(line, params["spread"], (1,), [(-1, 2)], ("NCH", "HIO", "NCH"))
        return jnp.sum(jnp.square(line), axis=(1, 2))

    return Case(loss, params, {"x": draw(5, 6, 5, 4, seed=1)})


def attention(tied=True):
    params = {
        "tokens": draw(7, 4),
        "places": draw(6, 4),
        "query": draw(4, 2, 3),
        "key": draw(2, 3, 4),  # heads first, transposed when used
        "value": draw(4, 2, 3, seed=5),
        "out": draw(2, 3, 4, seed=6),
        "scale": draw(4),
        "shift": draw(4, seed=7),
        "temperature": jnp.asarray(0.3),
    } | ({} if tied else {"head": draw(4, 7)})

    def loss(params, batch):
        ids = batch["ids"]
        x = jnp.take(params["tokens"], ids, axis=0) + params["places"][: ids.shape[1]]
        normal = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 0.1)
        normal = normal * params["scale"] + params["shift"]
        q = jnp.einsum("btd,dhk->bthk", normal, params["query"])
        k = jnp.einsum("hkd,btd->bthk", params["key"], normal)
        v = jnp.einsum("btd,dhk->bhtk", normal, params["value"])
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k) * params["temperature"])
        mixed = jnp.einsum("bhts,bhsk->bthk", weights, v)
        x = x + jnp.einsum("bthk,hkd->btd", mixed, params["out"])
        head = params["tokens"].T if tied else params["head"]
        scores = jax.nn.log_softmax(x @ head)
        picked = jnp.take_along_axis(scores[:, :-1], ids[:, 1:, None], axis=2)
        return -picked[..., 0].mean(axis=1)

    ids = np.random.default_rng(2).integers(0, 7, (5, 4)).astype(np.int32)
    return Case(loss, params, {"ids": jnp.asarray(ids)})


def used_twice():
    params = {"w": draw(4, 4), "b": draw(4), "last": draw(4)}

    def loss(params, batch):
        x = batch["x"]
        for _ in range(2):
            x = jnp.tanh(x @ params["w"] + params["b"])
        return (x @ params["w"].T) @ params["last"] + x[:, 0]

    return Case(loss, params, {"x": draw(5, 4, seed=1)})


def computed_first():
    """Weights sliced, standardised and mixed before any example comes."""
    params = {"w": draw(6, 4), "gain": draw(3), "mix": draw(2), "b": draw(3, seed=4)}

    def loss(params, batch):
        w = params["w"][1:5] - params["w"][1:5].mean(0)
        w = w[:, :3] * params["gain"] / (jnp.sqrt(jnp.square(w[:, :3]).sum(0)) + 0.1)
        w = jnp.tensordot(params["mix"], jnp.stack([w, jnp.tanh(w)]), axes=1)
        penalty = 0.1 * jnp.sum(jnp.square(params["w"]))
        return jnp.square(batch["x"] @ w + params["b"]).sum(1) + penalty

    return Case(loss, params, {"x": draw(5, 4, seed=1)})


@jax.custom_vjp
def odd_product(w, x):
    return jnp.sin(x @ w)


odd_product.defvjp(
    lambda w, x: (odd_product(w, x), (w, x)),
    lambda kept, g: (3 * kept[1].T @ g, g @ kept[0].T),
)


def unrecognised():
    params = {
        "odd": draw(4, 3),
        "most": draw(3),
        "power": jnp.abs(draw(3)),
        "recurrent": draw(3, 3) / 3,
        "branch": draw(3, seed=9),
        "below": draw(3, seed=8),
    }

    def loss(params, batch):
        x = odd_product(params["odd"], batch["x"])
        x = jnp.maximum(x, params["most"])
        x = jnp.abs(x) ** params["power"] / (1 + jnp.abs(x * params["below"]))
        step = lambda h, _: (jnp.tanh(h @ params["recurrent"] + 0.1), None)
        x = lax.scan(step, x, length=40)[0] + x
        twice = lambda x: 2 * x * params["branch"]
        x = jax.vmap(lambda x: lax.cond(x.sum() > 1, twice, jnp.sin, x))(x)
        return jnp.sort(x + params["branch"], axis=1) @ jnp.arange(1.0, 4.0)

    return Case(loss, params, {"x": draw(5, 4, seed=1)})


def stacked_layers():
    """A loop over layers, recomputed in the backward pass, one example at a time."""
    params = {"w": draw(3, 4, 4) / 2, "b": draw(3, 4)}

    def one(params, example):
        layer = jax.checkpoint(lambda x, part: (jnp.tanh(part["w"].T @ x + part["b"]), x.sum()))
        x, sums = lax.scan(layer, example["x"], params)
        return jnp.sum(x) + jnp.sum(sums**2)

    loss = jax.jit(lambda params, batch: jax.vmap(one, (None, 0))(params, batch))
    return Case(loss, params, {"x": draw(5, 4, seed=1)})


def spectral():
    """A filter applied through complex numbers."""
    params = {"filter": draw(6), "w": draw(6, 2)}

    def loss(params, batch):
        kernel = jnp.fft.rfft(params["filter"])
        x = jnp.fft.irfft(jnp.fft.rfft(batch["x"]) * kernel, n=6)
        return jnp.square(x @ params["w"]).sum(1)

    return Case(loss, params, {"x": draw(5, 6, seed=1)})


CASES = {
    "mlp": mlp,
    "relu at zero": relu_at_zero,
    "convolution": convolution,
    "attention, tied": attention,
    "attention, untied": lambda: attention(tied=False),
    "used twice": used_twice,
    "computed first": computed_first,
    "unrecognised": unrecognised,
    "stacked layers": stacked_layers,
    "spectral": spectral,
}
