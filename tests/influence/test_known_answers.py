"""Every estimator against an independent route to the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem, relative, to_float64

from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    group_queries,
    normalise_by_gradient_norm,
    normalise_by_loss,
    representation_similarity,
)

FLOAT32, FLOAT64 = 1e-6, 1e-12
# what compiles for half a minute on the transformer
MINUTES_FOR_THE_LAST = ["mlp", "cnn", pytest.param("transformer", marks=pytest.mark.slow)]


def gradients(loss_fn, params, batch):
    """Per-example gradients as one matrix [B, P], one example at a time."""

    @jax.jit
    def one(row):
        tree = jax.grad(lambda p: loss_fn(p, row)[0])(params)
        return jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)])

    rows = range(jax.tree.leaves(batch)[0].shape[0])
    row = lambda i: jax.tree.map(lambda a: a[i : i + 1], batch)
    return np.stack([np.asarray(one(row(i)), np.float64) for i in rows])


def score(method, problem, queries=None):
    """The two pure functions, compiled as one."""
    run = jax.jit(
        lambda params, queries, train: method.score(method.prepare(params, queries), train)
    )
    queries = problem.queries if queries is None else queries
    return np.asarray(run(problem.params, queries, problem.train))


@pytest.mark.parametrize("problem", MINUTES_FOR_THE_LAST, indirect=True)
def test_grad_dot_is_the_dot_product_of_gradients(problem):
    loss_fn, params, queries, train = problem
    expected = gradients(loss_fn, params, queries) @ gradients(loss_fn, params, train).T
    for scorer, chunk in (("jvp", 2), ("jvp", None), ("gradients", None)):
        found = score(grad_dot(loss_fn, scorer=scorer, query_chunk=chunk), problem)
        assert relative(found, expected) < FLOAT32, (scorer, chunk)


@pytest.mark.parametrize("name", MINUTES_FOR_THE_LAST)
def test_float64_routes_agree_to_its_precision(x64, name):
    problem = make_problem(name)
    problem = problem._replace(
        loss_fn=to_float64(problem.loss_fn),
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )
    loss_fn, params, queries, train = problem
    expected = gradients(loss_fn, params, queries) @ gradients(loss_fn, params, train).T
    for method in (grad_dot(loss_fn), grad_dot(loss_fn, scorer="gradients")):
        found = score(method, problem)
        assert found.dtype == np.float64
        assert relative(found, expected) < FLOAT64


def test_jvp_follows_any_optimizer_update(mlp):
    """An independent route: the optimiser's own update, contracted with per-example gradients."""
    loss_fn, params, queries, train = mlp
    optimizer = optax.adamw(1e-3, weight_decay=0.1)
    found = score(forward_inf_jvp(loss_fn, optimizer=optimizer), mlp)
    train_gradients = gradients(loss_fn, params, train)
    for k in range(found.shape[0]):
        query = jax.tree.map(lambda a, k=k: a[k : k + 1], queries)
        grads = jax.grad(lambda p, q=query: loss_fn(p, q)[0])(params)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        flat = np.concatenate([np.asarray(u, np.float64).ravel() for u in jax.tree.leaves(updates)])
        assert relative(found[k], -train_gradients @ flat) < 1e-5


@pytest.mark.parametrize(("mode", "sign"), [("descent", 1.0), ("ascent", -1.0)])
def test_finite_step_is_the_change_of_the_loss(problem, mode, sign):
    """By hand: two steps of momentum on the query, then both losses of every example."""
    loss_fn, params, queries, train = problem
    optimizer = optax.sgd(0.05, momentum=0.9)

    @jax.jit
    def by_hand(query):
        moved, state = params, optimizer.init(params)
        for _ in range(2):
            grads = jax.grad(lambda p: sign * loss_fn(p, query)[0])(moved)
            updates, state = optimizer.update(grads, state, moved)
            moved = optax.apply_updates(moved, updates)
        return sign * (loss_fn(params, train) - loss_fn(moved, train))

    found = score(forward_inf(loss_fn, optimizer=optimizer, steps=2, mode=mode), problem)
    for k in range(found.shape[0]):
        expected = by_hand(jax.tree.map(lambda a, k=k: a[k : k + 1], queries))
        assert relative(found[k], expected) < 2e-5


def test_absolute_differences(mlp):
    make = lambda difference: forward_inf(mlp.loss_fn, mode="ascent", difference=difference)
    np.testing.assert_array_equal(score(make("absolute"), mlp), np.abs(score(make("signed"), mlp)))


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_finite_step_approaches_the_jvp_with_the_error_halving(x64, name):
    problem = make_problem(name)
    problem = problem._replace(
        loss_fn=to_float64(problem.loss_fn),
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )

    @jax.jit
    def error(lr):
        scores = [
            method.score(method.prepare(problem.params, problem.queries), problem.train)
            for method in (
                make(problem.loss_fn, optimizer=optax.sgd(lr))
                for make in (forward_inf, forward_inf_jvp)
            )
        ]
        return jnp.linalg.norm(scores[0] - scores[1]) / jnp.linalg.norm(scores[1])

    errors = [float(error(lr)) for lr in (2e-5, 1e-5, 5e-6)]
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.1)


def test_a_step_of_zero_changes_nothing(problem):
    """With frozen BatchNorm the scores vanish exactly."""
    found = score(forward_inf(problem.loss_fn, optimizer=optax.sgd(0.0)), problem)
    np.testing.assert_array_equal(found, 0.0)


def test_the_mirror(mlp):
    """The first-order influence of z on q is that of q on z."""
    method = grad_dot(mlp.loss_fn, scorer="gradients")
    forth = score(method, mlp)
    back = score(method, mlp._replace(queries=mlp.train, train=mlp.queries))
    assert relative(forth, back.T) < FLOAT32


@pytest.mark.parametrize("problem", MINUTES_FOR_THE_LAST, indirect=True)
def test_grad_cos_and_the_normalisers(problem):
    loss_fn, params, queries, train = problem
    q, z = gradients(loss_fn, params, queries), gradients(loss_fn, params, train)
    dots = q @ z.T
    norms = np.linalg.norm(z, axis=1)
    cosines = dots / norms / np.linalg.norm(q, axis=1)[:, None]
    losses = np.asarray(loss_fn(params, train), np.float64)
    assert relative(score(grad_cos(loss_fn, gradient_chunk=3), problem), cosines) < 1e-5
    by_norm = normalise_by_gradient_norm(grad_dot(loss_fn), loss_fn)
    assert relative(score(by_norm, problem), dots / norms) < 1e-5
    by_loss = normalise_by_loss(grad_dot(loss_fn), loss_fn, floor=1e-3)
    assert relative(score(by_loss, problem), dots / (losses + 1e-3)) < 1e-5


def test_estimated_norms_converge_to_the_exact_ones(mlp):
    loss_fn = mlp.loss_fn
    exact = score(normalise_by_gradient_norm(grad_dot(loss_fn), loss_fn), mlp)
    estimated = score(
        normalise_by_gradient_norm(
            grad_dot(loss_fn), loss_fn, num_probes=2000, key=jax.random.key(3)
        ),
        mlp,
    )
    # relative error of each norm: about 1 / sqrt(2 · 2000) = 1.6 %
    assert relative(estimated, exact) < 0.05


def test_a_group_is_one_query(mlp):
    """A group's direction is the gradient of its mean loss; ragged groups are padded."""
    loss_fn, params, queries, train = mlp
    groups = group_queries(queries, np.array([1, 0, 1]))
    found = score(grad_dot(loss_fn), mlp, groups)
    g = gradients(loss_fn, params, queries)
    expected = np.stack([g[1], (g[0] + g[2]) / 2]) @ gradients(loss_fn, params, train).T
    assert relative(found, expected) < FLOAT32
    one = score(grad_dot(loss_fn), mlp, group_queries(queries))
    assert relative(one, g.mean(0) @ gradients(loss_fn, params, train).T) < FLOAT32


def test_chunks_of_queries_change_nothing(mlp):
    loss_fn = mlp.loss_fn
    whole = score(forward_inf(loss_fn, optimizer=optax.sgd(0.1)), mlp)
    for chunk in (1, 2, 3):
        part = score(forward_inf(loss_fn, optimizer=optax.sgd(0.1), query_chunk=chunk), mlp)
        assert relative(part, whole) < 2e-5


def test_bfloat16_jvp_stays_near_float32(mlp):
    loss_fn = mlp.loss_fn
    exact = score(forward_inf_jvp(loss_fn), mlp)
    rough = score(forward_inf_jvp(loss_fn, compute_dtype=jnp.bfloat16), mlp)
    assert rough.dtype == np.float32
    assert 0 < relative(rough, exact) < 0.05


def test_scores_change_with_the_parameters(mlp):
    """The randomisation check: a method that ignores the model would not notice."""
    loss_fn = mlp.loss_fn
    leaves, structure = jax.tree.flatten(mlp.params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    other = [0.3 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    for method in (forward_inf(loss_fn), grad_dot(loss_fn), grad_cos(loss_fn)):
        trained = score(method, mlp)
        randomised = score(method, mlp._replace(params=jax.tree.unflatten(structure, other)))
        assert abs(np.corrcoef(trained.ravel(), randomised.ravel())[0, 1]) < 0.9


def test_nearest_neighbours(mlp):
    flat = lambda params, batch: batch["x"]
    q, z = (np.asarray(d["x"], np.float64).reshape(len(d["x"]), -1) for d in mlp[2:])
    cosine = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (
        z / np.linalg.norm(z, axis=1, keepdims=True)
    ).T
    distance = -((q[:, None] - z[None]) ** 2).sum(-1)
    for metric, expected in (("cosine", cosine), ("euclidean", distance), ("dot", q @ z.T)):
        assert relative(score(representation_similarity(flat, metric=metric), mlp), expected) < 1e-6
