"""Influence functions against closed forms, and every solver against the dense inverse."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convex import PENALTY, fit_ridge, logistic, ridge, ridge_loss
from problems import make_problem, relative, to_float64

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence.convergence import InfluenceWarning
from jaxinf.influence.curvature import GaussNewton
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.inverse_hessian import arnoldi, cg, exact, lissa
from jaxinf.models import MLP

SOLVERS = {
    "exact": (exact(), 1e-5, 1e-11),
    "cg": (cg(tolerance=1e-6), 1e-5, 1e-5),
    "preconditioned cg": (cg(tolerance=1e-6, precondition=True), 1e-5, 1e-5),
    "arnoldi": (arnoldi(rank=12, key=jax.random.key(1)), 1e-4, 1e-10),
    "lissa": (lissa(depth=400), 1e-4, 1e-4),
}


def run(method, problem, batch_size=40):
    train = Stream(as_source(problem.train), batch_size)
    state = method.prepare(problem.params, problem.queries, train)
    return np.asarray(jax.jit(method.score)(state, problem.train)), state


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_gives_the_closed_form(name):
    solver, tolerance, _ = SOLVERS[name]
    problem = logistic()
    method = influence_function(problem.loss_fn, solver=solver, damping=PENALTY)
    found, state = run(method, problem)
    assert relative(found, problem.influence) < tolerance
    assert (np.asarray(state.diagnostics["residual"]) < 1e-3).all()
    assert (np.asarray(state.diagnostics["iterations"]) >= 1).all()


@pytest.mark.parametrize("make", [ridge, logistic])
@pytest.mark.parametrize("name", SOLVERS)
def test_and_in_float64(x64, name, make):
    solver, _, tolerance = SOLVERS[name]
    problem = make(np.float64)
    method = influence_function(problem.loss_fn, solver=solver, damping=PENALTY)
    found, _ = run(method, problem)
    assert found.dtype == np.float64
    assert relative(found, problem.influence) < tolerance


def test_ridge_leave_one_out_through_the_hat_matrix(x64):
    """What z's removal does to a prediction is exactly the influence over 1 − its leverage."""
    problem = ridge(np.float64)
    x, y = problem.train["x"], problem.train["y"]
    n = len(x)
    predict = lambda w, batch: batch["x"] @ w
    method = influence_function(problem.loss_fn, solver="exact", damping=PENALTY, measure=predict)
    found, _ = run(method, problem)
    leverage = np.diag(x @ np.linalg.solve(x.T @ x + n * PENALTY * np.eye(x.shape[1]), x.T))
    w = fit_ridge(x, y)
    for z in range(n):
        rest = np.delete(np.arange(n), z)
        # N stays: leaving out is a weight of zero
        change = problem.queries["x"] @ (fit_ridge(x[rest], y[rest], count=n) - w)
        np.testing.assert_allclose(found[:, z] / (1 - leverage[z]), change, rtol=1e-9, atol=1e-12)


def test_the_mirror(x64):
    """Swapping query and training example leaves the first-order influence unchanged."""
    problem = logistic(np.float64)
    method = influence_function(problem.loss_fn, solver="exact", damping=PENALTY)
    train = Stream(as_source(problem.train), 40)
    some = jax.tree.map(lambda a: a[:6], problem.train)

    @jax.jit
    def scores(params, queries, examples):
        return method.score(method.prepare(params, queries, train), examples)

    forth = scores(problem.params, problem.queries, some)
    back = scores(problem.params, some, problem.queries)
    assert relative(forth, back.T) < 1e-12


def test_the_forward_only_route_equals_contracted_gradients(x64):
    """JVP(C⁻¹g) on a network, against dense algebra on per-example gradients."""
    problem = make_problem("mlp", num_train=11, num_queries=2)
    problem = problem._replace(
        loss_fn=to_float64(problem.loss_fn),
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )
    options = {"curvature": "fisher", "damping": 0.1}
    options["solver"] = cg(tolerance=1e-12)
    forward, state = run(influence_function(problem.loss_fn, **options), problem, 6)
    contracted = influence_function(problem.loss_fn, scorer="gradients", **options)
    assert relative(forward, jax.jit(contracted.score)(state, problem.train)) < 1e-12
    flat = lambda batch: np.stack(
        [
            np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradient(problem, batch, i))])
            for i in range(jax.tree.leaves(batch)[0].shape[0])
        ]
    )
    q, z = flat(problem.queries), flat(problem.train)
    # (GᵀG / N + λ)⁻¹ by the small matrix: P is large, N is not
    n = len(z)
    small = np.linalg.solve(z @ z.T / n + 0.1 * np.eye(n), z @ z.T) / n
    expected = (q @ z.T - q @ z.T @ small.T) / 0.1 / n
    assert relative(forward, expected) < 1e-9


def gradient(problem, batch, i):
    row = jax.tree.map(lambda a: a[i : i + 1], batch)
    return _gradient(problem.loss_fn, problem.params, row)


@jax.jit
def _gradient(loss_fn, params, row):
    return jax.grad(lambda p: loss_fn(p, row)[0])(params)


def test_gauss_newton_of_a_linear_model_is_its_hessian(x64):
    problem = logistic(np.float64)
    split = GaussNewton(
        lambda w, batch: batch["x"] @ w,
        lambda logits, batch: optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]),
    )
    found, _ = run(
        influence_function(problem.loss_fn, solver="exact", curvature=split, damping=PENALTY),
        problem,
    )
    assert relative(found, problem.influence) < 1e-11


def test_inverse_gauss_newton_of_a_network_by_conjugate_gradients(x64):
    """Beside Jᵀ H J built densely: not the Hessian, and not the Fisher matrix either."""
    problem = make_problem("mlp", num_train=12)
    problem = problem._replace(
        params=to_float64(problem.params),
        queries=to_float64(problem.queries),
        train=to_float64(problem.train),
    )
    module = MLP((16, 8), 4)
    outputs = lambda params, batch: module.apply({"params": params}, batch["x"])
    loss = lambda logits, batch: optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    flat, back = jax.flatten_util.ravel_pytree(problem.params)
    at = lambda flat: outputs(back(flat), problem.train)
    jacobian = np.asarray(jax.jit(jax.jacobian(at))(flat))
    p = np.asarray(jax.nn.softmax(at(flat)))
    inner = np.einsum("bi,ij->bij", p, np.eye(4)) - p[:, :, None] * p[:, None, :]
    matrix = np.einsum("bip,bij,bjq->pq", jacobian, inner, jacobian) / len(p)
    inverse = np.linalg.inv(matrix + 0.1 * np.eye(len(flat)))
    of_row = jax.jit(
        jax.vmap(
            lambda row: jax.flatten_util.ravel_pytree(
                jax.grad(
                    lambda params: loss(
                        outputs(params, jax.tree.map(lambda a: a[None], row)),
                        jax.tree.map(lambda a: a[None], row),
                    )[0]
                )(problem.params)
            )[0]
        )
    )
    q, z = (np.asarray(of_row(part)) for part in (problem.queries, problem.train))
    method = influence_function(
        problem.loss_fn,
        solver=cg(tolerance=1e-12),
        curvature=GaussNewton(outputs, loss),
        damping=0.1,
    )
    found, state = run(method, problem)
    assert relative(found, q @ inverse @ z.T / len(z)) < 1e-9
    assert float(state.diagnostics["residual"].max()) < 1e-11


def test_a_penalty_is_part_of_the_curvature(x64):
    problem = logistic(np.float64)
    penalty = lambda w: PENALTY / 2 * jnp.sum(w**2)
    found, _ = run(
        influence_function(problem.loss_fn, solver=cg(tolerance=1e-12), penalty=penalty), problem
    )
    assert relative(found, problem.influence) < 1e-10


def test_margins_weights_and_damping_in_units_of_the_mean_eigenvalue(x64):
    """Direction (GᵀG + λ)⁻¹g of margin gradients, λ the mean diagonal of GGᵀ; weights 1 − p."""
    problem = logistic(np.float64)
    p = lambda batch: np.exp(-np.asarray(jax.jit(problem.loss_fn)(problem.params, batch)))
    margins = problem.train_gradients / -(1 - p(problem.train))[:, None]
    asked = problem.query_gradients / -(1 - p(problem.queries))[:, None]
    most = min(margins.shape)
    damping = 0.7 * np.sum(margins**2) / most
    inverse = np.linalg.inv(margins.T @ margins + damping * np.eye(margins.shape[1]))
    expected = asked @ inverse @ margins.T * (1 - p(problem.train))
    method = influence_function(
        problem.loss_fn,
        solver=cg(tolerance=1e-12),
        curvature="fisher",
        measure="margin",
        damping=0.7,
        damping_unit="mean_eigenvalue",
    )
    found, state = run(method, problem, 16)
    assert relative(found, expected) < 1e-10
    assert relative(state.diagnostics["damping"], np.full(5, damping / len(margins))) < 1e-12


def test_the_trace_of_a_hessian_is_estimated():
    problem = logistic()
    method = influence_function(
        problem.loss_fn, solver="exact", damping=1.0, damping_unit="mean_eigenvalue"
    )
    _, state = run(method, problem)
    exactly = np.trace(problem.hessian) / problem.hessian.shape[0]
    # 32 probes: relative error about √(2 / 32) ‖H‖_F / tr H, a tenth or so
    assert relative(state.diagnostics["damping"], np.full(5, exactly)) < 0.25


def test_scores_do_not_depend_on_the_blocks(x64):
    problem = logistic(np.float64)
    method = influence_function(problem.loss_fn, solver=cg(tolerance=1e-12), damping=PENALTY)
    whole, _ = run(method, problem, 40)
    for size in (7, 64):
        assert relative(run(method, problem, size)[0], whole) < 1e-10
    chunked = influence_function(
        problem.loss_fn, solver=cg(tolerance=1e-12), damping=PENALTY, query_chunk=2
    )
    assert relative(run(chunked, problem)[0], whole) < 1e-10


def test_the_finite_scorer_tends_to_the_jvp():
    problem = ridge()
    make = lambda scorer: influence_function(problem.loss_fn, scorer=scorer, damping=PENALTY)
    first, _ = run(make("jvp"), problem)
    finite, state = run(make("finite"), problem)
    figures = make("finite").diagnose(state, problem.train, jax.random.key(0))
    # the loss is quadratic: what the step adds to its limit is of the step's own size
    assert 0 < relative(finite, first) < 0.1
    assert (np.asarray(figures["nonlinearity"]) < 0.1).all()


def test_attribute_runs_it():
    problem = logistic()
    method = influence_function(problem.loss_fn, damping=PENALTY)
    found = attribute(
        method, problem.params, problem.queries, problem.train, batch_size=16, progress=False
    )
    assert relative(found.scores, problem.influence) < 1e-3
    assert set(found.diagnostics) == {
        "loss_before",
        "gradient_norm",
        "step_norm",
        "damping",
        "residual",
        "iterations",
    }
    assert (found.diagnostics["residual"] <= 2e-4).all()
    assert "cg" in found.plan.method
    assert f"damping={PENALTY}" in found.plan.method


def test_traced_and_not_give_the_same():
    problem = logistic()
    method = influence_function(problem.loss_fn, damping=PENALTY)

    @jax.jit
    def both(params, queries, train):
        return method.score(method.prepare(params, queries, Stream(as_source(train), 40)), train)

    traced = both(problem.params, problem.queries, problem.train)
    assert relative(traced, run(method, problem)[0]) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-8)])
def test_preconditioning_undoes_unlike_scales(request, dtype, tolerance):
    """Forty features in units from 1 to 1000: a condition number of 1e6."""
    if dtype is np.float64:
        request.getfixturevalue("x64")
    rng, count, width = np.random.default_rng(0), 400, 40
    x = rng.normal(size=(count + 3, width)) * np.logspace(0, 3, width)
    y = rng.normal(size=len(x))
    w = np.linalg.lstsq(x[:count], y[:count], rcond=None)[0]
    hessian = x[:count].T @ x[:count] / count
    assert np.linalg.cond(hessian) > 1e6
    gradients = (x @ w - y)[:, None] * x
    expected = gradients[count:] @ np.linalg.solve(hessian, gradients[:count].T) / count
    split = lambda part: {"x": x[part].astype(dtype), "y": y[part].astype(dtype)}
    train, queries = split(slice(count)), split(slice(count, None))
    iterations, errors = {}, {}
    for precondition in (False, True):
        solver = cg(tolerance=tolerance, precondition=precondition, max_iterations=1000)
        method = influence_function(ridge_loss, solver=solver)
        state = method.prepare(jnp.asarray(w, dtype), queries, Stream(as_source(train), count))
        # both are solved: what is saved is not accuracy
        assert (state.diagnostics["residual"] <= 2 * tolerance).all()
        errors[precondition] = relative(jax.jit(method.score)(state, train), expected)
        iterations[precondition] = np.asarray(state.diagnostics["iterations"])
    assert (iterations[True] <= iterations[False] / 2).all()
    # which parameters a residual is measured by matters, too
    assert errors[True] < min(errors[False], 10 * tolerance)


def test_what_is_not_converged_says_its_residual():
    problem = logistic()
    short = influence_function(
        problem.loss_fn, solver=cg(max_iterations=2, tolerance=1e-6), damping=PENALTY
    )
    with pytest.warns(
        InfluenceWarning, match=r"cg\(.*\) is not converged for 5 of 5 .* up to 0\.\d+"
    ):
        _, state = run(short, problem)
    assert (np.asarray(state.diagnostics["residual"]) > 1e-3).all()
    assert (np.asarray(state.diagnostics["iterations"]) == 2).all()
    for solver, name in ((lissa(depth=3), "lissa"), (arnoldi(rank=2), "arnoldi")):
        method = influence_function(problem.loss_fn, solver=solver, damping=PENALTY)
        with pytest.warns(InfluenceWarning, match=rf"{name}\(.*\) is not converged"):
            run(method, problem)


def test_traced_it_warns_of_nothing_and_its_diagnostics_say_it(x64):
    """Residual and iterations of a compiled `prepare`, beside the dense matrix."""
    problem = logistic(np.float64)
    solver = cg(max_iterations=2, tolerance=1e-6)
    method = influence_function(problem.loss_fn, solver=solver, damping=PENALTY)
    prepare = lambda p, q: method.prepare(p, q, Stream(as_source(problem.train), 16))
    # warnings are errors in these tests: there is none
    state = jax.jit(prepare)(problem.params, problem.queries)
    solution = -40 * np.asarray(state.directions).reshape(5, -1)
    left = problem.query_gradients - solution @ (problem.hessian + PENALTY * np.eye(12))
    residual = np.linalg.norm(left, axis=1) / np.linalg.norm(problem.query_gradients, axis=1)
    assert (residual > 1e-3).all()
    assert relative(state.diagnostics["residual"], residual) < 1e-9
    assert (np.asarray(state.diagnostics["iterations"]) == 2).all()
    # the usual way is not traced, and warns
    with pytest.warns(InfluenceWarning, match="not converged for 5 of 5"):
        found = attribute(method, *problem[1:4], batch_size=16, progress=False)
    assert relative(found.diagnostics["residual"], residual) < 1e-9


def saddle(w, batch):
    return jnp.sin(3 * batch["x"] @ w[:, 0]) * (batch["x"] @ w[:, 1]) + (batch["x"] @ w[:, 2]) ** 2


@pytest.mark.parametrize("solver", ["cg", cg(precondition=True), "exact", "arnoldi"])
def test_a_hessian_that_is_not_positive_definite(solver):
    problem = logistic()._replace(loss_fn=saddle)
    for damping in (0.0, 1e-3):
        method = influence_function(saddle, solver=solver, damping=damping)
        with pytest.raises(
            InputError, match=r"not positive definite .* set damping above"
        ) as error:
            run(method, problem)
        assert "\n" not in str(error.value)
    # enough of it, and it is solved
    found, _ = run(influence_function(saddle, solver=solver, damping=100.0), problem)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("batch_size", [40, 16])
def test_lissa_on_a_hessian_that_is_not_positive_definite(batch_size):
    """Its series grows along what is negative: an error where it has blown up, else a warning."""
    problem = logistic()._replace(loss_fn=saddle)
    for damping in (0.0, 1e-3):
        method = influence_function(saddle, solver="lissa", damping=damping)
        with pytest.raises(InputError, match=r"LiSSA diverged .* raise damping if") as error:
            run(method, problem, batch_size)
        assert "\n" not in str(error.value)
        short = influence_function(saddle, solver=lissa(depth=10), damping=damping)
        with pytest.warns(InfluenceWarning, match="not converged for 5 of 5 .* raise depth, damp"):
            run(short, problem, batch_size)
    found, state = run(influence_function(saddle, solver="lissa", damping=100.0), problem)
    assert np.isfinite(found).all()
    assert (np.asarray(state.diagnostics["residual"]) < 1e-3).all()


def test_lissa_on_a_hessian_that_is_hardly_negative():
    """Curvatures 1, 1/2 and -1/1000: 500 steps do not blow up, and the residual gives it away."""
    curvatures = jnp.array([1.0, 0.5, -1e-3])
    bowl = lambda w, batch: jnp.sum(curvatures * w**2) / 2 + batch["x"] @ w
    batch = {"x": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)}
    method = influence_function(bowl, solver="lissa")
    with pytest.warns(InfluenceWarning, match="lissa.* is not converged for"):
        method.prepare(jnp.zeros(3), batch, Stream(as_source(batch), 8))


def test_a_singular_hessian_is_refused_by_the_exact_solver():
    """Softmax does not see a shift of all classes: one null direction per input."""
    problem = logistic()
    with pytest.raises(InputError, match="not positive definite"):
        run(influence_function(problem.loss_fn, solver="exact"), problem)


def test_lissa_that_diverges():
    problem = logistic()
    method = influence_function(problem.loss_fn, solver=lissa(scale=0.05), damping=PENALTY)
    with pytest.raises(InputError, match=r"LiSSA diverged .*: raise its scale"):
        run(method, problem)


def test_bad_settings():
    problem = logistic()
    for options, match in (
        ({"solver": "newton"}, "solver must be one of cg, lissa, arnoldi, kfac, ekfac, exact"),
        ({"damping": -1.0}, "damping must be at least 0"),
        ({"damping": float("nan")}, "damping must be at least 0"),
        ({"damping_unit": "trace"}, "damping_unit must be"),
        ({"curvature": "kfac"}, "curvature must be"),
        ({"solver": "ekfac"}, "ekfac approximates curvature='fisher'"),
        ({"measure": "accuracy"}, "measure must be"),
        ({"scorer": "guess"}, "scorer must be"),
        ({"query_chunk": 0}, "query_chunk must be"),
    ):
        with pytest.raises(InputError, match=match):
            influence_function(problem.loss_fn, **options)
    for make in (
        lambda: cg(tolerance=0.0),
        lambda: cg(max_iterations=0),
        lambda: lissa(scale=-1.0),
        lambda: lissa(depth=0),
        lambda: arnoldi(rank=0),
        lambda: exact(max_parameters=0),
    ):
        with pytest.raises(InputError, match="must be positive"):
            make()
    with pytest.raises(InputError, match="has 12 parameters and the exact solver takes 5"):
        run(influence_function(problem.loss_fn, solver=exact(max_parameters=5)), problem)


def test_without_a_training_set():
    problem = logistic()
    method = influence_function(problem.loss_fn, damping=PENALTY)
    with pytest.raises(InputError, match="passes over the training set"):
        method.prepare(problem.params, problem.queries)
    batches = iter([problem.train])
    with pytest.raises(InputError, match="not as an iterable of batches"):
        attribute(method, problem.params, problem.queries, batches, progress=False)
    # traced, it is asked for shapes: what is computed is no score
    shapes_only = jax.jit(lambda p, q: method.prepare(p, q).directions)
    assert np.isnan(shapes_only(problem.params, problem.queries)).all()
