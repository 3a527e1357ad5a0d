"""The known answers a to i, each in float32 and in float64, on problems that are cheap.

Letters as in the issue: a routes agree; b finite step; c closed form; d mirror; e unrolling;
f leave-one-out; g frozen BatchNorm; h invariance; i LDS.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convex import PENALTY, fit_logistic, fit_ridge, logistic, ridge
from problems import make_problem, relative, to_float64

from jaxinf import attribute
from jaxinf.engine import Stream, as_source, data_mesh
from jaxinf.evaluation import linear_datamodeling_score
from jaxinf.evaluation.lds import lds
from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    influence_function,
    leave_one_out,
    leave_one_out_ridge,
    mirrored_leave_one_out,
    mirrored_unroll,
)
from jaxinf.influence.ghost.scores import MixedDirections

N = 40
SCORERS = ("auto", "jvp", "gradients", "ghost", "factored")


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Each of the two, with jax switched to it."""
    if request.param is np.float32:
        yield np.float32
        return
    request.getfixturevalue("x64")
    yield np.float64


def pick(dtype, single, double):
    return single if dtype is np.float32 else double


def network(name, dtype):
    problem = make_problem(name, num_train=11, num_queries=2)
    if dtype is np.float32:
        return problem
    return problem._replace(
        loss_fn=to_float64(problem.loss_fn),
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )


def run(method, problem, queries=None, train=None):
    """Both pure functions, compiled."""
    train = problem.train if train is None else train
    queries = problem.queries if queries is None else queries
    stream = Stream(as_source(problem.train), N)

    @jax.jit
    def scores(params, queries, batch):
        return method.score(method.prepare(params, queries, stream), batch)

    return np.asarray(scores(problem.params, queries, train))


def test_a_forward_and_reverse_routes_agree(dtype):
    problem = network("mlp", dtype)
    one = lambda row: jax.grad(
        lambda p: problem.loss_fn(p, jax.tree.map(lambda a: a[None], row))[0]
    )(problem.params)
    each = jax.jit(jax.vmap(one))
    flat = lambda batch: np.concatenate(
        [np.asarray(g, np.float64).reshape(len(g), -1) for g in jax.tree.leaves(each(batch))],
        axis=1,
    )
    expected = flat(problem.queries) @ flat(problem.train).T
    for scorer in SCORERS:
        method = grad_dot(problem.loss_fn, scorer=scorer)
        directions = method.prepare(problem.params, problem.queries).directions
        # the routes that need factors are given them
        factored = isinstance(directions, MixedDirections) and any(directions.factors)
        assert factored or scorer not in ("ghost", "factored")
        found = run(method, problem)
        assert found.dtype == dtype
        assert relative(found, expected) < pick(dtype, 1e-6, 1e-12), scorer


def test_b_the_finite_step_tends_to_the_derivative(dtype):
    problem = logistic(dtype)

    def error(rate):
        options = {"optimizer": optax.sgd(rate)}
        step, limit = (
            run(make(problem.loss_fn, **options), problem)
            for make in (forward_inf, forward_inf_jvp)
        )
        return relative(step, limit)

    # float32 resolves long steps only
    errors = [error(rate * pick(dtype, 0.04, 1e-4)) for rate in (4, 2, 1)]
    np.testing.assert_allclose(np.array(errors[:2]) / errors[1:], 2, rtol=0.1)


@pytest.mark.parametrize("scorer", SCORERS)
def test_c_derivative_along_the_inverse_hessian_is_the_closed_form(dtype, scorer):
    for make in (ridge, logistic):
        problem = make(dtype)
        method = influence_function(problem.loss_fn, solver="exact", damping=PENALTY, scorer=scorer)
        assert relative(run(method, problem), problem.influence) < pick(dtype, 1e-6, 1e-10)


def test_c_ridge_through_the_hat_matrix(dtype):
    problem = ridge(dtype)
    x, y, xq, yq = (
        np.asarray(part[name], np.float64)
        for part in (problem.train, problem.queries)
        for name in "xy"
    )
    loss = lambda w: (xq @ w - yq) ** 2 / 2
    whole = loss(fit_ridge(x, y))
    rest = [np.delete(np.arange(N), z) for z in range(N)]
    expected = np.stack([loss(fit_ridge(x[r], y[r], count=N)) - whole for r in rest], axis=1)
    found = leave_one_out(
        problem.loss_fn, problem.params, problem.queries, problem.train, l2=PENALTY
    )
    assert relative(found.influences, expected) < pick(dtype, 1e-3, 1e-8)
    # its loss has no ½: twice the penalty is the same model, and influences are twice as large
    arrays = problem.train["x"], problem.train["y"], problem.queries["x"], problem.queries["y"]
    closed = leave_one_out_ridge(*arrays, l2=2 * PENALTY)
    assert relative(closed, 2 * expected) < pick(dtype, 1e-4, 1e-10)


def test_d_swapping_query_and_example_changes_nothing(dtype):
    problem = logistic(dtype)
    some = jax.tree.map(lambda a: a[:6], problem.train)
    for scorer in SCORERS:
        options = {"solver": "exact", "damping": PENALTY, "scorer": scorer}
        method = influence_function(problem.loss_fn, **options)
        forth = run(method, problem, train=some)
        back = run(method, problem, queries=some, train=problem.queries)
        assert relative(forth, back.T) < pick(dtype, 1e-6, 1e-12), scorer


def retrained(problem, extra=None, without=None):
    """Weights by Newton in NumPy, with a query added or an example left out; N stays."""
    x, y = (np.asarray(problem.train[name]) for name in "xy")
    weights = np.full(N, 1 / N)
    if without is not None:
        weights[without] = 0
    if extra is not None:
        x, y = (
            np.concatenate([a, problem.queries[n][extra : extra + 1]])
            for a, n in ((x, "x"), (y, "y"))
        )
        weights = np.append(weights, 1 / N)
    return fit_logistic(x.astype(np.float64), y, weights)


def losses(w, batch):
    logits = np.asarray(batch["x"], np.float64) @ w
    top = logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(logits, np.asarray(batch["y"])[:, None], axis=1)
    return (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) - own)[:, 0]


def test_e_many_steps_are_mirrored_leave_one_out(dtype):
    problem = logistic(dtype)
    base = losses(retrained(problem), problem.train)
    truth = np.stack([base - losses(retrained(problem, extra=k), problem.train) for k in range(5)])
    penalty = lambda w: PENALTY / 2 * jnp.sum(w**2)
    errors = []
    for steps in (3, 30, 300):
        method = mirrored_unroll(
            problem.loss_fn, optimizer=optax.sgd(1.0), steps=steps, penalty=penalty, scorer="finite"
        )
        state = method.prepare(problem.params, problem.queries, Stream(as_source(problem.train), N))
        errors.append(relative(jax.jit(method.score)(state, problem.train), truth))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < pick(dtype, 1e-3, 1e-6)
    given = problem.loss_fn, problem.params, problem.queries, problem.train
    found = mirrored_leave_one_out(*given, l2=PENALTY)
    assert relative(found.influences, truth) < pick(dtype, 1e-3, 1e-8)


def test_f_leave_one_out_reaches_a_stated_gradient_norm(dtype):
    problem = logistic(dtype)
    given = problem.loss_fn, problem.params, problem.queries, problem.train
    rows = [0, 3, 17]
    found = leave_one_out(*given, l2=PENALTY, rows=rows)
    assert found.gradient_norms.max() <= pick(dtype, 1e-6, 1e-10)
    whole = losses(retrained(problem), problem.queries)
    expected = [losses(retrained(problem, without=row), problem.queries) - whole for row in rows]
    assert relative(found.influences, np.stack(expected, axis=1)) < pick(dtype, 1e-3, 1e-8)


def test_g_a_rate_of_zero_gives_exactly_zero_with_frozen_batch_norm(dtype):
    problem = network("cnn", dtype)
    options = {"optimizer": optax.sgd(0.0)}
    limits = [forward_inf_jvp(problem.loss_fn, scorer=scorer, **options) for scorer in SCORERS]
    for method in (forward_inf(problem.loss_fn, **options), *limits):
        found = run(method, problem)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, 0)


def test_h_scores_depend_on_neither_batches_devices_nor_a_resume(dtype, tmp_path):
    problem = network("mlp", dtype)
    method = grad_cos(problem.loss_fn)

    def scores(devices, batch_size, **options):
        mesh = data_mesh(jax.devices()[:devices])
        options = {
            "mesh": mesh,
            "batch_size": batch_size,
            "chunk_size": 8,
            "progress": False,
        } | options
        return attribute(method, *problem[1:], **options).scores

    whole = scores(1, 11)
    assert whole.dtype == dtype
    for devices, batch_size in ((1, 4), (2, 4), (8, 8)):
        assert relative(scores(devices, batch_size), whole) < pick(dtype, 1e-5, 1e-12)

    again = lambda: attribute(
        method, *problem[1:], mesh=data_mesh(jax.devices()[:1]), batch_size=4, chunk_size=8,
        progress=False, store=tmp_path / "store",
    )  # fmt: skip
    first = again()
    # as if it had been killed before its last chunk
    (tmp_path / "store" / "scores" / "c" / "0" / "1").unlink()
    resumed = again()
    assert resumed.plan.rows_scored == 3
    np.testing.assert_array_equal(resumed.scores, first.scores)


def test_h_scores_change_with_the_parameters(dtype):
    problem = network("mlp", dtype)
    leaves, structure = jax.tree.flatten(problem.params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    other = [
        0.3 * jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)
    ]
    method = grad_cos(problem.loss_fn)
    randomised = problem._replace(params=jax.tree.unflatten(structure, other))
    both = run(method, problem), run(method, randomised)
    assert abs(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1]) < 0.9


def test_i_lds_of_the_truth_is_one_and_of_noise_is_zero(dtype):
    rng = np.random.default_rng(2)
    effects = rng.normal(size=(100, 60)).astype(dtype)
    subsets = np.stack([rng.permutation(60) < 30 for _ in range(50)])
    outputs = (subsets @ effects.T).astype(dtype)
    np.testing.assert_allclose(linear_datamodeling_score(effects, subsets, outputs), 1, atol=1e-4)
    noise = lds(rng.normal(size=effects.shape).astype(dtype), subsets, outputs, seed=3).mean
    assert noise.low < 0 < noise.high
    assert noise.high - noise.low < 0.2
