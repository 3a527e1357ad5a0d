"""Names of methods stand for the methods they name."""

import numpy as np
import optax
import pytest

from jaxinf import attribute
from jaxinf.cli.methods import Method, Normalise, build_attributor
from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    normalise_by_gradient_norm,
    normalise_by_loss,
)

RNG = np.random.default_rng(0)
ROWS = {
    "x": RNG.normal(size=(8, 2)).astype(np.float32),
    "y": RNG.normal(size=8).astype(np.float32),
}


def loss(w, batch):
    return (batch["x"] @ w - batch["y"]) ** 2


def scores(attributor):
    queries = {key: value[:2] for key, value in ROWS.items()}
    weights = np.ones(2, np.float32)
    return attribute(attributor, weights, queries, ROWS, progress=False, diagnostics=False).scores


SGD = optax.sgd(0.25)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"method": Method.FORWARD_INF}, forward_inf(loss)),
        (
            {"method": Method.FORWARD_INF, "learning_rate": 0.25, "steps": 2},
            forward_inf(loss, optimizer=SGD, steps=2),
        ),
        (
            {"method": Method.FORWARD_INF_JVP, "learning_rate": 0.25},
            forward_inf_jvp(loss, optimizer=SGD),
        ),
        ({"method": Method.GRAD_DOT}, grad_dot(loss)),
        ({"method": Method.GRAD_COS}, grad_cos(loss)),
        (
            {"method": Method.GRAD_DOT, "normalise": Normalise.LOSS},
            normalise_by_loss(grad_dot(loss), loss),
        ),
        (
            {"method": Method.GRAD_DOT, "normalise": Normalise.GRADIENT_NORM},
            normalise_by_gradient_norm(grad_dot(loss), loss),
        ),
    ],
    ids=lambda value: value["method"].value if isinstance(value, dict) else "",
)
def test_a_name_and_its_options_give_the_method_itself(options, same):
    built = build_attributor(options.pop("method"), loss, **options)
    assert built.name == same.name
    np.testing.assert_array_equal(scores(built), scores(same))
