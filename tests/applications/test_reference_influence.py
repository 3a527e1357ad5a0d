"""Influence relative to reference queries, against its formula written out in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf import attribute
from jaxinf.applications.leakage import reference_influence
from jaxinf.errors import InputError


def loss_fn(params, batch):
    return (jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]) ** 2


def examples(count, seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(count, 4)).astype(np.float32),
        "y": rng.normal(size=count).astype(np.float32),
    }


def gradients(params, batch):
    """By hand, float64, one row per example."""
    w, v = (np.asarray(params[key], np.float64) for key in ("w", "v"))
    hidden = np.tanh(batch["x"].astype(np.float64) @ w)
    error = 2 * (hidden @ v - batch["y"])
    inner = error[:, None] * v * (1 - hidden**2)
    of_w = batch["x"][:, :, None] * inner[:, None]
    return np.concatenate([error[:, None] * hidden, of_w.reshape(len(error), -1)], axis=1)


def params():
    rng = np.random.default_rng(9)
    return {
        "v": jnp.asarray(rng.normal(size=3), jnp.float32),
        "w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    }


def by_the_formula(params, queries, reference, train, ridge):
    unit = lambda g: g / np.linalg.norm(g, axis=1, keepdims=True)
    u, r, g = (
        unit(gradients(params, queries)),
        unit(gradients(params, reference)),
        gradients(params, train),
    )
    inverse = np.linalg.inv(r @ r.T + ridge * np.eye(len(r)))
    of_queries = u - u @ r.T @ inverse @ r
    of_references = r - r @ r.T @ inverse @ r
    own = np.sqrt(np.sum(u * of_queries, axis=1, keepdims=True))
    size = np.mean(np.abs(of_references @ g.T), axis=0)
    return of_queries @ g.T / own / size, of_queries


@pytest.mark.parametrize("scorer", ["jvp", "gradients", "auto"])
def test_scores_are_those_of_the_formula(scorer):
    queries, reference, train = examples(3, 0), examples(5, 1), examples(24, 2)
    method = reference_influence(loss_fn, reference, ridge=0.2, scorer=scorer)
    found = attribute(method, params(), queries, train, batch_size=8, progress=False)
    expected, directions = by_the_formula(params(), queries, reference, train, 0.2)
    np.testing.assert_allclose(
        found.scores, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
    )
    np.testing.assert_allclose(
        found.diagnostics["kept"], np.linalg.norm(directions, axis=1), rtol=1e-4
    )
    if scorer == "jvp":
        assert found.plan.forward_passes == 2 + 2 * 8  # two chunks of at most 4 + 4 directions


def test_a_large_ridge_leaves_the_direction_and_divides_by_the_references():
    queries, reference, train = examples(2, 3), examples(6, 4), examples(16, 5)
    method = reference_influence(loss_fn, reference, ridge=1e6)
    found = attribute(method, params(), queries, train, diagnostics=False, progress=False).scores
    unit = lambda g: g / np.linalg.norm(g, axis=1, keepdims=True)
    q, r, g = (gradients(params(), part) for part in (queries, reference, train))
    expected = unit(q) @ g.T / np.mean(np.abs(unit(r) @ g.T), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_copies_come_first_and_relabelled_ones_last():
    train, reference = examples(200, 6), examples(120, 7)
    queries = {key: value[:20] for key, value in train.items()}
    error = np.tanh(queries["x"] @ np.asarray(params()["w"])) @ np.asarray(params()["v"])
    other = {"x": queries["x"], "y": (2 * error - queries["y"]).astype(np.float32)}
    method = reference_influence(loss_fn, reference)
    score = lambda asked: (
        attribute(method, params(), asked, train, diagnostics=False, progress=False).scores
    )
    np.testing.assert_allclose(score(other), -score(queries), rtol=1e-3, atol=5e-3)
    top = score(queries).argmax(axis=1)
    assert np.mean(top == np.arange(20)) > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": examples(0, 0)}, "reference is empty"),
        ({"reference": {}}, "reference holds no arrays"),
        ({"reference": examples(2, 0), "ridge": 0.0}, "ridge is 0.0"),
        ({"reference": examples(2, 0), "scorer": "newton"}, "scorer must be"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        reference_influence(loss_fn, **options)
