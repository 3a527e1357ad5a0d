"""Representer points: the last layer's output as a sum over the training set."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from convex import PENALTY, logistic
from problems import relative

from jaxinf import attribute
from jaxinf.influence import grad_dot
from jaxinf.influence.queries import group_queries
from jaxinf.influence.representer import representer_points


def model(w, batch):
    return batch["x"], batch["x"] @ w


def output_loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])


def test_the_terms_sum_to_the_output(x64):
    """At the optimum under ½ PENALTY ‖W‖² = λ‖W‖²: 2λ = PENALTY."""
    problem = logistic(np.float64)
    method = representer_points(model, output_loss)
    found = jax.jit(method.score)(method.prepare(problem.params, problem.queries), problem.train)
    total = np.asarray(found).sum(axis=1) / (PENALTY * 40)
    logits = problem.queries["x"] @ np.asarray(problem.params)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slopes = shares - np.eye(3)[problem.queries["y"]]
    np.testing.assert_allclose(total, -(slopes * logits).sum(1), rtol=1e-9)


def test_it_is_the_dot_product_of_last_layer_gradients():
    problem = logistic()
    whole = grad_dot(problem.loss_fn, scorer="gradients")
    expected = jax.jit(whole.score)(whole.prepare(problem.params, problem.queries), problem.train)
    found = attribute(
        representer_points(model, output_loss),
        problem.params,
        problem.queries,
        problem.train,
        progress=False,
    )
    assert relative(found.scores, expected) < 1e-5
    before = jax.jit(problem.loss_fn)(problem.params, problem.queries)
    assert relative(found.diagnostics["loss_before"], before) < 1e-6


def test_a_group_is_the_mean_of_its_members():
    problem = logistic()
    method = representer_points(model, output_loss)
    each = jax.jit(method.score)(method.prepare(problem.params, problem.queries), problem.train)
    groups = group_queries(problem.queries, np.array([0, 1, 0, 0, 1]))
    found = jax.jit(method.score)(method.prepare(problem.params, groups), problem.train)
    members = np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], np.float32)
    expected = members / members.sum(1, keepdims=True) @ np.asarray(each)
    assert relative(jnp.asarray(found), expected) < 1e-5
