"""Briefly trained models together: the formula of TRAK's average, without its projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative

from jaxinf import InputError
from jaxinf.engine import Stream, as_source
from jaxinf.influence import (
    early_ensemble,
    influence_function,
    stack_checkpoints,
    trak,
    weight_by_doubt,
)
from jaxinf.influence.measures import doubt

SMALL = {"num_train": 11, "num_queries": 2}


def models_of(problem, count=2):
    grow = lambda c: jax.tree.map(lambda p: p * (1 + 0.3 * c), problem.params)
    return stack_checkpoints([grow(c) for c in range(count)])


def run(method, params, problem):
    state = method.prepare(params, problem.queries, Stream(as_source(problem.train), 4))
    return np.asarray(jax.jit(method.score)(state, problem.train))


def test_it_is_trak_without_projection():
    """TRAK's λ is that of the sum over the training set, and its scores lack the 1/N."""
    problem = make_problem("mlp", **SMALL)
    models = models_of(problem)
    found = run(early_ensemble(problem.loss_fn, num_models=2, damping=0.5), models, problem)
    projected = trak(
        problem.loss_fn,
        projection_dim=None,
        num_checkpoints=2,
        damping=0.5,
        damping_unit="mean_eigenvalue",
    )
    assert relative(found, run(projected, models, problem)) < 1e-3


def test_margins_times_doubt_are_losses():
    """Of one model, the weight 1 − p makes the margin's gradient the loss's."""
    problem = make_problem("mlp", **SMALL)
    options = {"solver": "woodbury", "curvature": "fisher", "measure": "margin", "damping": 0.1}
    of_loss = influence_function(problem.loss_fn, **options)
    of_margin = influence_function(problem.loss_fn, train_measure="margin", **options)
    assert of_loss.name != of_margin.name
    expected = run(of_loss, problem.params, problem)
    bare = run(of_margin, problem.params, problem)
    weights = doubt(problem.loss_fn(problem.params, problem.train))
    assert relative(bare * weights[None], expected) < 1e-4
    weighted = weight_by_doubt(of_margin, problem.loss_fn)
    assert relative(run(weighted, problem.params, problem), expected) < 1e-4


def test_the_weights_have_a_power():
    problem = make_problem("mlp", **SMALL)
    models = models_of(problem)
    plain, half = (
        early_ensemble(problem.loss_fn, num_models=2, doubt_power=power) for power in (1.0, 0.5)
    )
    assert plain.name != half.name
    losses = jax.vmap(problem.loss_fn, (0, None))(models, problem.train)
    weights = np.asarray(doubt(losses).mean(axis=0))
    expected = run(plain, models, problem) / np.sqrt(weights)
    assert relative(run(half, models, problem), expected) < 1e-5
    with pytest.raises(InputError, match="power of the weights 1 − p is 0"):
        early_ensemble(problem.loss_fn, num_models=2, doubt_power=0.0)


def test_losses_are_averaged_without_weights():
    problem = make_problem("mlp", **SMALL)
    models = models_of(problem)
    found = run(early_ensemble(problem.loss_fn, num_models=2, measure="loss"), models, problem)
    one = influence_function(
        problem.loss_fn,
        solver="woodbury",
        curvature="fisher",
        damping=1.0,
        damping_unit="mean_eigenvalue",
    )
    each = [run(one, jax.tree.map(lambda a, c=c: a[c], models), problem) for c in range(2)]
    assert relative(found, np.mean(each, axis=0)) < 1e-5


def test_models_that_are_not_stacked():
    problem = make_problem("mlp", **SMALL)
    with pytest.raises(InputError, match="no leading axis of 3"):
        run(early_ensemble(problem.loss_fn, num_models=3), models_of(problem), problem)
    assert jnp.ndim(models_of(problem)["linear"]["bias"]) == 2
