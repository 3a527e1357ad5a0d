"""Self-influence by one pass and by making every example a query; and as a normaliser."""

import jax
import numpy as np
import pytest
from convex import logistic
from problems import make_problem, relative

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence import (
    forward_inf_jvp,
    grad_dot,
    influence_function,
    normalise_by_gradient_norm,
    normalise_by_self_influence,
)
from jaxinf.influence.logra import logra
from jaxinf.influence.self_influence import self_influence
from jaxinf.influence.trak import trak

METHODS = {
    "grad_dot": grad_dot,
    "trak": lambda loss: trak(
        loss, projection_dim=8, key=jax.random.key(0), damping=1.0, with_self_score=True
    ),
    "logra": lambda loss: logra(loss, rank=3, key=jax.random.key(0), with_self_score=True),
    "logra of margins": lambda loss: logra(
        loss, rank=3, init="pca", measure="margin", blocks="all", with_self_score=True
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_one_pass_is_the_diagonal(mlp, name):
    method = METHODS[name](mlp.loss_fn)
    found = self_influence(method, mlp.params, mlp.train, batch_size=8)
    state = method.prepare(mlp.params, mlp.train, Stream(as_source(mlp.train), 8))
    scores = np.asarray(jax.jit(method.score)(state, mlp.train))
    assert found.shape == (37,)
    assert relative(found, np.diagonal(scores)) < 1e-4


def test_without_a_shortcut_every_example_is_a_query(x64):
    problem = logistic(np.float64)
    method = influence_function(problem.loss_fn, solver="exact", damping=0.05)
    found = self_influence(method, problem.params, problem.train, batch_size=16)
    damped = problem.hessian + 0.05 * np.eye(12)
    solved = np.linalg.solve(damped, problem.train_gradients.T)
    expected = np.einsum("np,pn->n", problem.train_gradients, solved) / 40
    assert relative(found, expected) < 1e-10


@pytest.mark.parametrize("name", METHODS)
def test_normalised_scores_are_scores_over_the_root(mlp, name):
    method = METHODS[name](mlp.loss_fn)
    whole = attribute(method, *mlp[1:], progress=False)
    found = attribute(normalise_by_self_influence(method), *mlp[1:], progress=False)
    root = np.sqrt(self_influence(method, mlp.params, mlp.train))
    assert relative(found.scores, whole.scores / root) < 1e-4
    assert set(found.diagnostics) == set(whole.diagnostics)


def test_on_gradients_it_is_the_gradient_norm():
    mlp = make_problem("mlp")
    dots = grad_dot(mlp.loss_fn)
    a = attribute(normalise_by_self_influence(dots), *mlp[1:], progress=False)
    b = attribute(normalise_by_gradient_norm(dots, mlp.loss_fn), *mlp[1:], progress=False)
    assert relative(a.scores, b.scores) < 1e-5


def test_bad_input(mlp):
    with pytest.raises(InputError, match="has no self_score: divide its scores"):
        normalise_by_self_influence(forward_inf_jvp(mlp.loss_fn))
    with pytest.raises(InputError, match="floor must be positive"):
        normalise_by_self_influence(grad_dot(mlp.loss_fn), floor=0.0)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        self_influence(grad_dot(mlp.loss_fn), mlp.params, mlp.train, batch_size=0)
    with pytest.raises(InputError, match="an iterable of batches cannot be"):
        self_influence(grad_dot(mlp.loss_fn), mlp.params, iter([mlp.train]))
