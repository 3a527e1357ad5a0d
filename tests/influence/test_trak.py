"""TRAK against its closed form, and the random projections beneath it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convex import logistic
from problems import relative

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence.ensemble import stack_checkpoints
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.inverse_hessian import exact
from jaxinf.influence.projection import project
from jaxinf.influence.trak import trak

KEY = jax.random.key(3)


def run(method, problem, params=None, batch_size=16):
    params = problem.params if params is None else params
    train = Stream(as_source(problem.train), batch_size)
    state = method.prepare(params, problem.queries, train)
    return np.asarray(jax.jit(method.score)(state, problem.train)), state


def closed_form(problem, params, damping=0.0, matrix=None):
    """Projected margin gradients by hand: (kernel [K, N], weights 1 − p [N])."""
    p = lambda batch: np.exp(-np.asarray(jax.jit(problem.loss_fn)(params, batch), np.float64))

    def gradients(batch):
        logits = np.asarray(batch["x"] @ np.asarray(params), np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        slopes = shares - np.eye(shares.shape[1])[np.asarray(batch["y"])]
        flat = np.einsum("nd,nc->ndc", np.asarray(batch["x"], np.float64), slopes)
        return flat.reshape(len(flat), -1) / -(1 - p(batch))[:, None]

    q, z = gradients(problem.queries), gradients(problem.train)
    if matrix is not None:
        q, z = q @ matrix, z @ matrix
    kernel = q @ np.linalg.solve(z.T @ z + damping * np.eye(z.shape[1]), z.T)
    return kernel, 1 - p(problem.train)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_without_projection_it_is_the_closed_form(x64, dtype, tolerance):
    problem = logistic(dtype)
    kernel, weights = closed_form(problem, problem.params, damping=0.3)
    method = trak(problem.loss_fn, projection_dim=None, damping=0.3)
    for size in (40, 16):
        found, _ = run(method, problem, batch_size=size)
        assert found.dtype == dtype
        assert relative(found, kernel * weights) < tolerance


def test_projected_it_is_the_closed_form_of_the_projected_gradients(x64):
    problem = logistic(np.float64)
    matrix = np.stack(
        [project(row, jax.random.fold_in(KEY, 0), 5) for row in np.eye(12)]  # P × d
    )
    kernel, weights = closed_form(problem, problem.params, matrix=matrix)
    found, state = run(trak(problem.loss_fn, projection_dim=5, key=KEY), problem)
    assert relative(found, kernel * weights) < 1e-10
    assert (np.asarray(state.diagnostics["condition"]) >= 1).all()


def test_several_checkpoints_are_a_product_of_means(x64):
    problem = logistic(np.float64)
    models = [problem.params, 0.5 * problem.params]
    parts = [closed_form(problem, model, damping=0.1) for model in models]
    expected = np.mean([p[0] for p in parts], 0) * np.mean([p[1] for p in parts], 0)
    method = trak(problem.loss_fn, projection_dim=None, num_checkpoints=2, damping=0.1)
    found, _ = run(method, problem, stack_checkpoints(models))
    assert relative(found, expected) < 1e-10


def test_it_is_an_influence_function_of_the_fisher_matrix(x64):
    """One checkpoint, no projection: two routes that share no linear algebra."""
    problem = logistic(np.float64)
    options = {"measure": "margin", "damping_unit": "mean_eigenvalue", "damping": 0.5}
    projected = trak(problem.loss_fn, projection_dim=None, **options)
    solved = influence_function(problem.loss_fn, solver=exact(), curvature="fisher", **options)
    assert relative(run(projected, problem)[0], run(solved, problem)[0]) < 1e-10


def test_the_loss_as_the_measure_has_no_weights(x64):
    problem = logistic(np.float64)
    q, z = problem.query_gradients, problem.train_gradients
    expected = q @ np.linalg.solve(z.T @ z + 0.2 * np.eye(12), z.T)
    method = trak(problem.loss_fn, projection_dim=None, measure="loss", damping=0.2)
    assert relative(run(method, problem)[0], expected) < 1e-10


def test_attribute_runs_it():
    problem = logistic()
    method = trak(problem.loss_fn, projection_dim=6, key=KEY, num_checkpoints=2)
    models = stack_checkpoints([problem.params, 0.5 * problem.params])
    found = attribute(method, models, problem.queries, problem.train, batch_size=16, progress=False)
    assert relative(found.scores, run(method, problem, models)[0]) < 1e-4
    assert set(found.diagnostics) == {"loss_before", "condition"}


def test_projections_keep_inner_products():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, 5000)).astype(np.float32)
    dim = 2000
    found = jax.jit(jax.vmap(lambda v: project(v, KEY, dim)))(vectors)
    scale = np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(vectors, axis=1))
    # standard error 1 / √dim, or √2 / √dim on the diagonal: five of them
    np.testing.assert_allclose(found @ found.T / scale, vectors @ vectors.T / scale, atol=0.16)
    # one matrix per key, whatever the company
    assert relative(project(vectors[1], KEY, dim), found[1]) < 1e-6
    other = project(vectors[1], jax.random.key(4), dim)
    assert relative(other, found[1]) > 1


def test_projections_in_blocks_of_rows_are_one_matrix(monkeypatch):
    """Blocks are drawn apart; across them entries are signs, and do not repeat."""
    from jaxinf.influence import projection

    monkeypatch.setattr(projection, "_SIGN_BYTES", 7 * 64 * 4)
    matrix = np.asarray(jax.vmap(lambda v: project(v, KEY, 40))(jnp.eye(30)))
    signs = matrix * np.sqrt(40)
    np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-6)
    overlaps = signs @ signs.T / 40 - np.eye(30)
    assert np.abs(overlaps).max() < 0.8
    combined = np.random.default_rng(0).normal(size=30).astype(np.float32)
    assert relative(project(jnp.asarray(combined), KEY, 40), combined @ matrix) < 1e-5


def test_bad_input():
    problem = logistic()
    make = lambda **options: trak(problem.loss_fn, **({"projection_dim": None} | options))
    for options, match in (
        ({"projection_dim": 0, "key": KEY}, "projection_dim must be at least 1"),
        ({"projection_dim": 4}, "needs a key"),
        ({"num_checkpoints": 0}, "num_checkpoints must be"),
        ({"damping": -1.0}, "damping must be at least 0"),
        ({"damping_unit": "trace"}, "damping_unit must be"),
        ({"measure": "accuracy"}, "measure must be"),
    ):
        with pytest.raises(InputError, match=match):
            make(**options)
    with pytest.raises(InputError, match="no leading axis of 3 checkpoints"):
        run(make(num_checkpoints=3), problem)
    with pytest.raises(InputError, match="passes over the training set"):
        make().prepare(problem.params, problem.queries)
    with pytest.raises(InputError, match=r"40 projected gradients of dimension 64 is singular"):
        run(make(projection_dim=64, key=KEY), problem)
