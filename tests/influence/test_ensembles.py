"""Over checkpoints and seeds: sums of what one model gives, TracIn among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convex import PENALTY, logistic
from problems import make_problem, relative, to_float64

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence import forward_inf, grad_cos, grad_dot, representation_similarity
from jaxinf.influence.ensemble import ensemble, over_checkpoints, stack_checkpoints
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.tracin import tracin
from jaxinf.influence.trak import trak

RATES = [0.1, 0.05, 0.2]


@pytest.fixture(scope="module")
def problem():
    return make_problem("mlp", num_train=13, num_queries=2)


def shrunk(params, count=3):
    return [jax.tree.map(lambda p, c=c: p * (1 - 0.2 * c), params) for c in range(count)]


def score(method, params, problem):
    run = jax.jit(lambda p, q, z: method.score(method.prepare(p, q), z))
    return np.asarray(run(params, problem.queries, problem.train))


def expected(problem, models, weights):
    each = [score(grad_dot(problem.loss_fn), model, problem) for model in models]
    return sum(w * part for w, part in zip(weights, each, strict=True))


@pytest.mark.parametrize("scorer", ["jvp", "gradients"])
def test_tracin_is_the_sum_of_gradient_dots(problem, scorer):
    models = shrunk(problem.params)
    method = tracin(problem.loss_fn, RATES, scorer=scorer)
    found = score(method, stack_checkpoints(models), problem)
    assert relative(found, expected(problem, models, RATES)) < 1e-6


def test_tracin_in_float64(x64, problem):
    wide = problem._replace(
        loss_fn=to_float64(problem.loss_fn),
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )
    models = shrunk(wide.params)
    found = score(tracin(wide.loss_fn, RATES), stack_checkpoints(models), wide)
    assert found.dtype == np.float64
    assert relative(found, expected(wide, models, RATES)) < 1e-12


def test_attribute_runs_tracin(problem):
    models = shrunk(problem.params)
    found = attribute(
        tracin(problem.loss_fn, RATES, scorer="jvp"),
        stack_checkpoints(models),
        problem.queries,
        problem.train,
        batch_size=8,
        progress=False,
    )
    assert relative(found.scores, expected(problem, models, RATES)) < 1e-5
    before = np.mean(
        [np.asarray(jax.jit(problem.loss_fn)(m, problem.queries)) for m in models], axis=0
    )
    assert relative(found.diagnostics["loss_before"], before) < 1e-5
    assert found.plan.forward_passes == 3 * 5  # three checkpoints of 1 + 2 · 2


def test_operations_of_several_models_are_those_of_one_each(problem):
    """The loss of stacked models costs as many passes already: they are not counted twice."""
    rows = jax.tree.leaves(problem.train)[0].shape[0]
    options = {"batch_size": rows, "progress": False, "diagnostics": False}

    def operations(method, params):
        plan = attribute(method, params, problem.queries, problem.train, **options).plan
        return plan.flops_per_example

    models = stack_checkpoints(shrunk(problem.params))
    one = operations(grad_dot(problem.loss_fn, scorer="jvp"), problem.params)
    three = operations(tracin(problem.loss_fn, RATES, scorer="jvp"), models)
    np.testing.assert_allclose(three, 3 * one, rtol=0.05)
    stacked = trak(
        problem.loss_fn, projection_dim=None, num_checkpoints=3, damping=1.0, measure="loss"
    )
    alone = trak(problem.loss_fn, projection_dim=None, damping=1.0, measure="loss")
    np.testing.assert_allclose(
        operations(stacked, models), 3 * operations(alone, problem.params), rtol=0.05
    )
    # of one that no planner chooses for
    both = operations(
        ensemble([forward_inf(problem.loss_fn)] * 2), (problem.params, problem.params)
    )
    alone = operations(forward_inf(problem.loss_fn), problem.params)
    np.testing.assert_allclose(both, 2 * alone, rtol=0.05)


def test_over_checkpoints_of_a_method_that_needs_the_training_set():
    problem = logistic()
    models = shrunk(problem.params, 2)
    one = influence_function(problem.loss_fn, solver="exact", damping=PENALTY)
    method = over_checkpoints(one, [0.25, 0.75])
    train = Stream(as_source(problem.train), 40)
    state = method.prepare(stack_checkpoints(models), problem.queries, train)
    score_one = jax.jit(one.score)
    each = [score_one(one.prepare(m, problem.queries, train), problem.train) for m in models]
    found = jax.jit(method.score)(state, problem.train)
    assert relative(found, 0.25 * each[0] + 0.75 * each[1]) < 1e-5


def test_an_ensemble_of_unlike_methods(problem):
    members = [grad_cos(problem.loss_fn), forward_inf(problem.loss_fn)]
    models = tuple(shrunk(problem.params, 2))
    parts = [score(m, model, problem) for m, model in zip(members, models, strict=True)]
    found = score(ensemble(members), models, problem)
    assert relative(found, (parts[0] + parts[1]) / 2) < 1e-6
    found = attribute(
        ensemble([*members, representation_similarity(lambda params, batch: batch["x"])]),
        (*models, {"unused": jnp.zeros(1)}),
        problem.queries,
        problem.train,
        progress=False,
    )
    assert {"gradient_norm_0", "loss_after_1"} <= set(found.diagnostics)
    assert found.plan.forward_passes == 3 + 3 + 1


def test_checkpoints_of_unlike_structure(problem):
    params = problem.params
    fewer = {name: part for name, part in params.items() if name != sorted(params)[0]}
    with pytest.raises(InputError, match=r"checkpoint 1 is .* all must be of one model") as error:
        stack_checkpoints([params, fewer])
    assert "\n" not in str(error.value)
    wider = jax.tree.map(lambda a: jnp.zeros((*a.shape, 2)), params)
    with pytest.raises(InputError, match=r"checkpoint 2\['.*'\] has shape .* in checkpoint 0"):
        stack_checkpoints([params, params, wider])
    with pytest.raises(InputError, match="at least one"):
        stack_checkpoints([])


def test_params_that_are_not_stacked(problem):
    method = tracin(problem.loss_fn, RATES)
    for params in (problem.params, stack_checkpoints(shrunk(problem.params, 2))):
        with pytest.raises(InputError, match="no leading axis of 3 checkpoints"):
            method.prepare(params, problem.queries)
    members = [grad_dot(problem.loss_fn)] * 2
    with pytest.raises(InputError, match="a tuple of 2 models"):
        ensemble(members).prepare((problem.params,), problem.queries)


def test_bad_weights(problem):
    for weights in ([], [[1.0]], [float("nan")]):
        with pytest.raises(InputError, match="one finite number per model"):
            over_checkpoints(grad_dot(problem.loss_fn), weights)
    with pytest.raises(InputError, match="at least one attributor"):
        ensemble([])
    with pytest.raises(InputError, match="1 attributors but 2 weights"):
        ensemble([grad_dot(problem.loss_fn)], [1.0, 2.0])
