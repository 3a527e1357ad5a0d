"""Leave-one-out and its mirror on convex models, against independent solvers and closed forms."""

import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import relative, to_float64

from jaxinf.engine import data_mesh
from jaxinf.errors import InputError
from jaxinf.evaluation import pearson, spearman
from jaxinf.influence import group_queries
from jaxinf.influence.ground_truth import (
    ConvergenceWarning,
    fit_convex,
    leave_one_out,
    leave_one_out_ridge,
    mirrored_leave_one_out,
)
from jaxinf.models import cross_entropy, squared_error

N, L2, CLASSES = 40, 0.02, 3


class Convex(NamedTuple):
    loss_fn: object
    params: object
    queries: object
    train: object


def logistic_loss(params, batch):
    return cross_entropy(batch["x"] @ params["w"] + params["b"][None], batch)


def ridge_loss(params, batch):
    return squared_error(batch["x"] @ params, batch)


def logistic():
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, N + 4).astype(np.int32)
    x = (rng.normal(size=(N + 4, 4)) + np.eye(CLASSES, 4)[y]).astype(np.float32)
    params = {"w": jnp.zeros((4, CLASSES)), "b": jnp.zeros(CLASSES)}
    part = lambda rows: {"x": x[rows], "y": y[rows]}
    return Convex(logistic_loss, params, part(slice(N, None)), part(slice(N)))


def ridge():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N + 3, 5)), rng.normal(size=(N + 3, 2))
    part = lambda rows: {"x": x[rows].astype(np.float32), "y": y[rows].astype(np.float32)}
    return Convex(ridge_loss, jnp.zeros((5, 2)), part(slice(N, None)), part(slice(N)))


def in_float64(problem):
    return problem._replace(
        **{name: to_float64(getattr(problem, name)) for name in Convex._fields[1:]}
    )


@pytest.fixture(scope="module")
def exact():
    """The truth and its mirror of the logistic problem in float64."""
    x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with x64(True):
        wide = in_float64(logistic())
        return leave_one_out(*wide, l2=L2), mirrored_leave_one_out(*wide, l2=L2)


def solved_by_scikit_learn(x, y, weights):
    """Weights [d + 1, C] of the same objective by another implementation; the bias is a column."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LogisticRegression(
        C=1 / (N * L2), fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg"
    )
    return model.fit(np.c_[x, np.ones(len(x))], y, sample_weight=weights).coef_.T


def loss_of(coefficients, batch):
    logits = np.c_[batch["x"], np.ones(len(batch["x"]))] @ coefficients
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), batch["y"]]


def test_logistic_leave_one_out_equals_another_solver(x64):
    problem = in_float64(logistic())
    train, queries = (jax.tree.map(np.asarray, part) for part in (problem.train, problem.queries))
    rows = [0, 3, 17]
    found = leave_one_out(*problem, l2=L2, rows=rows)
    assert found.gradient_norms.max() <= 1e-10
    assert found.influences.dtype == np.float64
    before = loss_of(solved_by_scikit_learn(train["x"], train["y"], np.ones(N)), queries)
    for column, row in enumerate(rows):
        weights = np.ones(N)
        weights[row] = 0
        after = loss_of(solved_by_scikit_learn(train["x"], train["y"], weights), queries)
        assert relative(found.influences[:, column], after - before) < 1e-6


def test_mirrored_equals_another_solver(x64):
    problem = in_float64(logistic())
    train, queries = (jax.tree.map(np.asarray, part) for part in (problem.train, problem.queries))
    found = mirrored_leave_one_out(*problem, l2=L2, query_mass=2.0)
    assert found.gradient_norms.max() <= 1e-10
    before = loss_of(solved_by_scikit_learn(train["x"], train["y"], np.ones(N)), train)
    for k in range(2):
        x, y = (np.concatenate([train[name], queries[name][k : k + 1]]) for name in ("x", "y"))
        after = loss_of(solved_by_scikit_learn(x, y, np.r_[np.ones(N), 2.0]), train)
        assert relative(found.influences[k], before - after) < 1e-6


def by_least_squares(x, y, keep, dtype=np.float64):
    x, y = x[keep].astype(dtype), y[keep].astype(dtype)
    return np.linalg.solve(x.T @ x + N * L2 / 2 * np.eye(x.shape[1]), x.T @ y)


def ridge_influences(problem):
    """By N + 1 least-squares problems."""
    (xq, yq), (x, y) = (
        (np.asarray(part["x"], np.float64), np.asarray(part["y"], np.float64))
        for part in (problem.queries, problem.train)
    )
    loss = lambda keep: ((xq @ by_least_squares(x, y, keep) - yq) ** 2).sum(axis=1)
    everything = np.ones(N, bool)
    without = [loss(everything & (np.arange(N) != i)) for i in range(N)]
    return np.stack(without, axis=1) - loss(everything)[:, None]


def closed_form(problem):
    train, queries = problem.train, problem.queries
    return leave_one_out_ridge(train["x"], train["y"], queries["x"], queries["y"], l2=L2)


def test_ridge_through_the_hat_matrix_is_exact(x64):
    problem = in_float64(ridge())
    expected = ridge_influences(problem)
    assert relative(closed_form(problem), expected) < 1e-10
    for solver in ("chord", "newton-cg"):
        found = leave_one_out(*problem, l2=L2, solver=solver, tolerance=1e-12)
        assert relative(found.influences, expected) < 1e-9


def test_ridge_in_float32():
    problem = ridge()
    expected = ridge_influences(problem)
    assert relative(closed_form(problem), expected) < 1e-5
    assert relative(leave_one_out(*problem, l2=L2).influences, expected) < 1e-4


def test_float32_follows_float64(exact):
    problem = logistic()
    single = leave_one_out(*problem, l2=L2), mirrored_leave_one_out(*problem, l2=L2)
    for a, b in zip(single, exact, strict=True):
        assert (a.influences.dtype, b.influences.dtype) == (np.float32, np.float64)
        assert a.gradient_norms.max() <= 1e-6
        assert relative(a.influences, b.influences) < 1e-3
    assert pearson(single[1].influences, single[0].influences).min() > 0.95
    assert spearman(single[1].influences, single[0].influences).min() > 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "newton-cg", "mesh": data_mesh, "models_at_once": 2},
        {"rows": np.arange(N)[::-1], "models_at_once": 32},
    ],
    ids=["newton-cg on eight devices", "another order"],
)
def test_neither_solver_nor_chunks_nor_devices_change_the_result(x64, exact, options):
    options = {name: value() if callable(value) else value for name, value in options.items()}
    found = leave_one_out(*in_float64(logistic()), l2=L2, **options)
    assert relative(found.influences[:, np.argsort(found.rows)], exact[0].influences) < 1e-7


def test_devices_do_not_change_the_mirror(x64, exact):
    problem = in_float64(logistic())
    found = mirrored_leave_one_out(*problem, l2=L2, mesh=data_mesh(), models_at_once=1)
    assert relative(found.influences, exact[1].influences) < 1e-7


@partial(jax.jit, static_argnums=0)
def first_order(loss_fn, queries, train, params):
    """(1/N) ∇ℓ(q)ᵀ H⁻¹ ∇ℓ(z) with a dense Hessian, written without the library."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    losses = lambda flat, batch: loss_fn(unravel(flat), batch)
    objective = lambda flat: losses(flat, train).mean() + L2 / 2 * flat @ flat
    hessian = jax.hessian(objective)(flat)
    jacobian = jax.jacrev(losses)
    return jacobian(flat, queries) @ jnp.linalg.solve(hessian, jacobian(flat, train).T) / N


def test_the_mirror_holds_to_first_order_with_the_error_halving(x64, exact):
    problem, (truth, _) = in_float64(logistic()), exact
    expected = first_order(
        problem.loss_fn, problem.queries, problem.train, jax.tree.map(jnp.asarray, truth.fit.params)
    )
    assert pearson(truth.influences, expected).min() > 0.99
    problem = problem._replace(params=truth.fit.params)
    errors = []
    for mass in (0.1, 0.05, 0.025):
        found = mirrored_leave_one_out(*problem, l2=L2, query_mass=mass)
        errors.append(relative(found.influences / mass, expected))
    assert errors[2] < 0.02
    np.testing.assert_allclose(np.divide(errors[:2], errors[1:]), 2, rtol=0.1)


def test_the_symmetric_mirror_has_no_second_order_error(x64, exact):
    problem, (truth, _) = in_float64(logistic()), exact
    problem = problem._replace(params=truth.fit.params)
    expected = first_order(
        problem.loss_fn, problem.queries, problem.train, jax.tree.map(jnp.asarray, truth.fit.params)
    )
    errors = []
    for mass in (0.4, 0.2, 0.1):
        added, taken = (
            mirrored_leave_one_out(*problem, l2=L2, query_mass=m).influences for m in (mass, -mass)
        )
        errors.append(relative((added - taken) / (2 * mass), expected))
        assert errors[-1] < relative(added / mass, expected) / 2
    np.testing.assert_allclose(np.divide(errors[:2], errors[1:]), 4, rtol=0.1)


def test_a_negative_mass_takes_the_query_away(x64):
    problem = in_float64(ridge())
    # a query that is a training example: without it, as leave-one-out trains
    queries = jax.tree.map(lambda a: a[:3], problem.train)
    found = mirrored_leave_one_out(*problem._replace(queries=queries), l2=L2, query_mass=-1.0)
    x, y = (np.asarray(problem.train[name]) for name in ("x", "y"))
    everything = np.ones(N, bool)
    losses = lambda keep: ((x @ by_least_squares(x, y, keep) - y) ** 2).sum(axis=1)
    for k in range(3):
        expected = losses(everything) - losses(everything & (np.arange(N) != k))
        assert relative(found.influences[k], expected) < 1e-8


@pytest.mark.parametrize("make", [logistic, ridge])
def test_a_mass_that_bends_the_objective_is_refused(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(InputError, match=r"query_mass is -400.0: .* not convex: .* raise l2"):
            mirrored_leave_one_out(*make(), l2=L2, query_mass=-400.0)


def test_steps_on_the_full_objective_reach_mirrored_leave_one_out(x64, exact):
    problem, (_, expected) = in_float64(logistic()), exact
    query = jax.tree.map(lambda a: a[:1], problem.queries)
    start = expected.fit.params
    flat_norm = lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    def objective(params):
        added = problem.loss_fn(params, problem.train).sum() + problem.loss_fn(params, query).sum()
        return added / N + L2 / 2 * flat_norm(params)

    @jax.jit
    def descend(params):
        optimizer = optax.sgd(0.5)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(objective)(params), state)
            params = optax.apply_updates(params, updates)
            return (params, state), problem.loss_fn(params, problem.train)

        _, losses = jax.lax.scan(step, (params, optimizer.init(params)), length=3000)
        return problem.loss_fn(params, problem.train)[None] - losses

    after = descend(start)
    errors = [relative(after[k - 1], expected.influences[0]) for k in (10, 100, 3000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_groups_of_queries_are_their_mean(x64, exact):
    problem = in_float64(logistic())
    groups = group_queries(jax.tree.map(np.asarray, problem.queries), np.array([0, 0, 0, 1]))
    problem = problem._replace(queries=groups)
    grouped = leave_one_out(*problem, l2=L2).influences
    single = exact[0].influences
    np.testing.assert_allclose(grouped[0], single[:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(grouped[1], single[3], rtol=1e-6)
    both = mirrored_leave_one_out(*problem, l2=L2).influences
    np.testing.assert_allclose(both[1], exact[1].influences[3], rtol=1e-6)


def test_what_is_not_converged_is_said():
    problem = logistic()
    with pytest.warns(ConvergenceWarning, match="gradient norm of .*, above the tolerance 1e-06"):
        fit_convex(problem.loss_fn, problem.params, problem.train, l2=L2, max_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = fit_convex(problem.loss_fn, problem.params, problem.train, l2=L2, tolerance=1e-3)
        with pytest.warns(ConvergenceWarning, match="leave-one-out training stopped .* of 2 times"):
            leave_one_out(*problem._replace(params=fit.params), l2=L2, rows=[0, 1], tolerance=1e-9)


def with_train(problem, **changes):
    return problem._replace(train=dict(problem.train) | changes)


@pytest.mark.parametrize(
    ("method", "change", "options", "message"),
    [
        (leave_one_out, {}, {"rows": [N]}, "reach from 40 to 40, but N is 40"),
        (leave_one_out, {}, {"rows": [0.5]}, "row numbers"),
        (leave_one_out, {}, {"l2": -1.0}, "l2 is -1.0"),
        (leave_one_out, {}, {"tolerance": 0.0}, "tolerance is 0.0"),
        (leave_one_out, {}, {"max_steps": 0}, "max_steps is 0"),
        (leave_one_out, {}, {"solver": "sgd"}, "'newton-cg'"),
        (leave_one_out, {}, {"models_at_once": 0}, "models_at_once is 0"),
        (mirrored_leave_one_out, {}, {"query_mass": 0.0}, "query_mass is 0.0: .* not 0"),
        (mirrored_leave_one_out, {}, {"query_mass": np.nan}, "query_mass is nan"),
        (mirrored_leave_one_out, {}, {"query_mass": -np.inf}, "query_mass is -inf"),
        (mirrored_leave_one_out, {"y": np.full(N, 7, np.int32)}, {}, "not finite"),
    ],
)
def test_bad_input_is_refused_in_one_line(method, change, options, message):
    problem = with_train(logistic(), **change)
    with pytest.raises(InputError, match=message) as caught:
        method(*problem, **({"l2": L2} | options))
    assert "\n" not in str(caught.value)


def test_the_only_example_of_a_class_is_not_left_out():
    problem = logistic()
    y = np.where(np.arange(N) == 3, 2, np.arange(N) % 2).astype(np.int32)
    alone = with_train(problem, y=y)
    for rows in (None, [0, 3]):
        with pytest.raises(InputError, match=r"row 3 is the only example of class 2: .*allow_miss"):
            leave_one_out(*alone, l2=L2, rows=rows)
    found = leave_one_out(*alone, l2=L2, rows=[0, 3], allow_missing_classes=True, tolerance=1e-4)
    assert np.isfinite(found.influences).all()
    assert leave_one_out(*alone, l2=L2, rows=[0], tolerance=1e-4).influences.shape[1] == 1


def test_a_problem_without_a_single_minimum_is_refused():
    problem = ridge()
    twice = lambda part: part | {"x": np.c_[part["x"], part["x"]]}
    singular = problem._replace(
        params=jnp.zeros((10, 2)), queries=twice(problem.queries), train=twice(problem.train)
    )
    with pytest.raises(InputError, match="not positive definite"):
        leave_one_out(*singular, l2=0.0, solver="chord", tolerance=1e-2)
    x = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match="no single minimum"):
        leave_one_out_ridge(x, np.ones(2, np.float32), x, np.ones(2, np.float32), l2=0.0)
    with pytest.raises(InputError, match="do not fit 2 examples"):
        leave_one_out_ridge(x, np.ones(3, np.float32), x, np.ones(2, np.float32), l2=1.0)
