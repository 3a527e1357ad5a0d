"""k steps on the full objective with the query and without: towards mirrored leave-one-out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convex import PENALTY, fit_logistic, logistic, ridge
from problems import relative

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.mirrored_unroll import mirrored_unroll


def penalty(w):
    return PENALTY / 2 * jnp.sum(w**2)


def run(method, problem, batch_size=40):
    train = Stream(as_source(problem.train), batch_size)
    state = method.prepare(problem.params, problem.queries, train)
    return np.asarray(jax.jit(method.score)(state, problem.train)), state


def mirrored_leave_one_out(problem):
    """Retrain with each query added at weight 1 / N, by Newton; then all losses, before − after."""
    x, y = (np.asarray(problem.train[name]) for name in "xy")
    n = len(x)
    losses = lambda w: np.asarray(jax.jit(problem.loss_fn)(jnp.asarray(w), problem.train))
    base = losses(fit_logistic(x, y, np.full(n, 1 / n)))
    rows = []
    for q in range(len(problem.queries["y"])):
        w = fit_logistic(
            np.concatenate([x, problem.queries["x"][q : q + 1]]),
            np.concatenate([y, problem.queries["y"][q : q + 1]]),
            np.full(n + 1, 1 / n),
        )
        rows.append(base - losses(w))
    return np.stack(rows)


def test_many_steps_reach_mirrored_leave_one_out(x64):
    problem = logistic(np.float64)
    truth = mirrored_leave_one_out(problem)
    errors = []
    for steps in (3, 30, 300):
        method = mirrored_unroll(
            problem.loss_fn,
            optimizer=optax.sgd(1.0),
            steps=steps,
            penalty=penalty,
            scorer="finite",
        )
        found, state = run(method, problem)
        errors.append(relative(found, truth))
        assert (state.diagnostics["loss_after"] < state.diagnostics["loss_before"]).all()
    assert errors[0] > 2 * errors[1] > 20 * errors[2]
    assert errors[2] < 1e-6


def test_its_derivative_reaches_the_influence_function_in_float32():
    problem = logistic()
    method = mirrored_unroll(
        problem.loss_fn,
        optimizer=optax.sgd(1.0),
        steps=200,
        penalty=penalty,
        displacement="derivative",
    )
    found, _ = run(method, problem)
    assert relative(found, problem.influence) < 1e-4


def test_one_step_is_the_query_gradient_alone(x64):
    problem = ridge(np.float64)
    for displacement in ("finite", "derivative"):
        method = mirrored_unroll(
            problem.loss_fn, optimizer=optax.sgd(0.3), steps=1, displacement=displacement
        )
        found, state = run(method, problem)
        moved = -0.3 * problem.query_gradients / 40
        assert relative(state.directions, moved) < 1e-9
        # θ has taken the step too, on the training set: scores are at its end
        x, y = problem.train["x"], problem.train["y"]
        at = np.asarray(problem.params) - 0.3 * problem.train_gradients.mean(0)
        gradients = (x @ at - y)[:, None] * x
        assert relative(found, -moved @ gradients.T) < 1e-9


def test_blocks_are_the_same_for_all_and_the_derivative_is_the_limit(x64):
    """By hand: three steps of momentum on blocks of 16, 16 and the 8 that are left."""
    problem = logistic(np.float64)
    optimizer = optax.sgd(0.2, momentum=0.9)
    options = {"optimizer": optimizer, "steps": 3, "full_batch": False}
    _, state = run(mirrored_unroll(problem.loss_fn, **options), problem, 16)

    @jax.jit
    def by_hand(query, weight):
        at, moments = problem.params, optimizer.init(problem.params)
        for start in (0, 16, 32):
            rows = {name: a[start : start + 16] for name, a in problem.train.items()}

            def objective(w, rows=rows):
                asked = problem.loss_fn(w, query)[0]
                return problem.loss_fn(w, rows).mean() + weight * asked

            updates, moments = optimizer.update(jax.grad(objective)(at), moments)
            at = optax.apply_updates(at, updates)
        return at

    for k in range(2):
        query = {name: a[k : k + 1] for name, a in problem.queries.items()}
        moved = by_hand(query, 1 / 40) - by_hand(query, 0.0)
        assert relative(state.directions[k], moved) < 1e-9
        derivative = mirrored_unroll(problem.loss_fn, displacement="derivative", **options)
        limit = run(derivative, problem, 16)[1].directions[k]
        slope = (by_hand(query, 1e-6) - by_hand(query, -1e-6)) / 2e-6 / 40
        assert relative(limit, slope) < 1e-7


def test_queries_are_independent_and_chunks_change_nothing(x64):
    problem = logistic(np.float64)
    make = lambda **options: mirrored_unroll(
        problem.loss_fn, optimizer=optax.adam(1e-2), steps=4, **options
    )
    whole, _ = run(make(), problem)
    assert relative(run(make(query_chunk=2), problem)[0], whole) < 1e-10
    one = problem._replace(queries=jax.tree.map(lambda a: a[3:4], problem.queries))
    assert relative(run(make(), one)[0], whole[3:4]) < 1e-8


def test_attribute_runs_it():
    problem = logistic()
    method = mirrored_unroll(
        problem.loss_fn, optimizer=optax.sgd(1.0), steps=5, displacement="derivative"
    )
    found = attribute(
        method, problem.params, problem.queries, problem.train, batch_size=16, progress=False
    )
    assert relative(found.scores, run(method, problem)[0]) < 1e-4
    assert set(found.diagnostics) == {"loss_before", "loss_after", "step_norm"}


def test_it_is_not_the_influence_function_after_few_steps():
    """The check above has something to find: ten steps are not yet the inverse."""
    problem = logistic()
    few = mirrored_unroll(
        problem.loss_fn, optimizer=optax.sgd(0.1), steps=3, displacement="derivative"
    )
    exact = influence_function(problem.loss_fn, solver="exact", damping=PENALTY)
    assert relative(run(few, problem)[0], run(exact, problem)[0]) > 0.3


def test_bad_input():
    problem = logistic()
    make = lambda **options: mirrored_unroll(
        problem.loss_fn, **({"optimizer": optax.sgd(0.1), "steps": 2} | options)
    )
    for options, match in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"displacement": "second"}, "displacement must be"),
        ({"measure": "accuracy"}, "measure must be"),
        ({"scorer": "guess"}, "scorer must be"),
    ):
        with pytest.raises(InputError, match=match):
            make(**options)
    with pytest.raises(InputError, match="not finite after 60 steps: lower the learning rate"):
        run(mirrored_unroll(ridge().loss_fn, optimizer=optax.sgd(1e3), steps=60), ridge())
    with pytest.raises(InputError, match="passes over the training set"):
        make().prepare(problem.params, problem.queries)
    shapes_only = jax.jit(lambda p, q: make().prepare(p, q).directions)
    assert np.isnan(shapes_only(problem.params, problem.queries)).all()
