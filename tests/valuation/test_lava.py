"""LAVA's values: finite differences, derivatives in the weights, routes, devices, bad input."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ott.geometry.geometry import Geometry

from jaxinf.engine.mesh import data_mesh
from jaxinf.errors import InputError
from jaxinf.valuation import (
    ValuationWarning,
    calibrated_gradients,
    class_wise_distance,
    group_gradients,
    lava,
    nearest_validation,
    sava,
)
from jaxinf.valuation.transport import solve_transport

# functions of the same name stand in the package
geometry_module = importlib.import_module("jaxinf.valuation.geometry")
routes_module = importlib.import_module("jaxinf.valuation.routes")

SOLVERS = ("annealed", "balanced", "semi-relaxed", "one-pass", "reference")


@functools.cache
def two_sets(n=60, m=40, classes=3, d=4, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, d)) * 3
    y, yv = rng.integers(classes, size=n), rng.integers(classes, size=m)
    x = (centres[y] + rng.normal(size=(n, d))).astype(np.float32)
    xv = (centres[yv] + rng.normal(size=(m, d))).astype(np.float32)
    wrong = rng.choice(n, n // 5, replace=False)
    y = y.copy()
    y[wrong] = (y[wrong] + 1) % classes
    return x, y, xv, yv, wrong


@pytest.mark.parametrize("solver", SOLVERS)
def test_wrong_labels_are_worth_least(solver):
    x, y, xv, yv, wrong = two_sets()
    found = lava(x, y, xv, yv, solver=solver)
    assert found.values.shape == (60,)
    lowest = np.argsort(found.values)[: len(wrong)]
    assert np.isin(lowest, wrong).mean() > 0.8


@pytest.mark.parametrize("solver", ["balanced", "semi-relaxed", "one-pass"])
def test_gradients_are_finite_differences(solver):
    """Known answer: moving mass onto an example changes the distance by its gradient."""
    x, y, xv, yv, _ = two_sets()
    found = lava(x, y, xv, yv, solver=solver, epsilon=0.05, threshold=1e-5, num_checks=8)
    assert found.converged
    assert len(found.certificate.checked) == 8
    assert found.certificate.finite_difference_error < 1e-3
    assert found.certificate.dual_gap < 1e-3


@pytest.mark.parametrize("solver", ["annealed", "reference"])
def test_a_schedule_does_not_claim_to_converge(solver):
    x, y, xv, yv, _ = two_sets()
    found = lava(x, y, xv, yv, solver=solver)
    assert not found.converged
    assert found.marginal_error > 0.1
    assert found.certificate.marginal_error == found.marginal_error


def test_contrast_takes_off_the_slope_of_the_mean_cost():
    """Known answer: jax.grad of OT_ε − κ OT_∞ in the masses, OT_∞ the same at a large ε."""
    x, y, xv, yv, _ = two_sets()
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, 60), jnp.float32)
    weights = weights / weights.sum()

    def contrasted(weights):
        given = {"train_weights": weights, "threshold": 1e-6}
        apart = class_wise_distance(x, y, xv, yv, epsilon=0.05, **given)
        return apart - 0.5 * class_wise_distance(x, y, xv, yv, epsilon=1e3, **given)

    options = {"solver": "balanced", "epsilon": 0.05, "threshold": 1e-6, "contrast": 0.5}
    found = lava(x, y, xv, yv, train_weights=weights, num_checks=0, **options)
    # weights are scaled to a sum of one inside, which takes the mean out of the derivative
    slope = jax.grad(contrasted)(weights) / (1 - weights)
    spread = float(jnp.ptp(slope))
    np.testing.assert_allclose(found.calibrated_gradients, slope, atol=3e-3 * spread)
    assert found.contrast == 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_contrast_is_of_the_annealed_solver_alone(solver):
    x, y, xv, yv, _ = two_sets()
    found = lava(x, y, xv, yv, solver=solver, num_checks=0)
    if solver == "annealed":
        # at most half the ratio of the spreads: values are linear in the contrast
        plain, full = (lava(x, y, xv, yv, contrast=c, num_checks=0).values for c in (0.0, 1.0))
        expected = min(0.25, 0.5 * np.std(plain) / np.std(np.subtract(plain, full)))
        np.testing.assert_allclose(found.contrast, expected, rtol=1e-4)
        mixed = (1 - expected) * plain + expected * full
        np.testing.assert_allclose(found.values, mixed, atol=1e-4 * np.ptp(mixed))
    else:
        assert found.contrast == 0
        np.testing.assert_allclose(found.calibrated_gradients, calibrated_gradients(found.f))


def test_contrast_finds_mixtures_that_transport_takes_for_typical():
    """Points between two classes: near to all, so cheap to carry, and of no class."""
    rng = np.random.default_rng(0)
    centres = np.array([[4.0] + [0] * 9, [-4.0] + [0] * 9], "f")
    y, yv = np.arange(200) % 2, np.arange(100) % 2
    x, xv = (centres[of] + rng.normal(size=(len(of), 10)).astype("f") for of in (y, yv))
    mixed = np.arange(200) < 40
    x[mixed] = 0.6 * x[mixed]
    share = {}
    for contrast in (0.0, 0.25):
        values = lava(x, y, xv, yv, contrast=contrast, num_checks=0).values
        share[contrast] = np.isin(np.argsort(values)[:40], np.flatnonzero(mixed)).mean()
    assert share[0.25] > share[0.0]


def test_potentials_are_the_derivative_in_the_weights():
    """A second route: jax.grad of the distance in the masses."""
    x, y, xv, yv, _ = two_sets()
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, 60), jnp.float32)
    weights = weights / weights.sum()

    def distance(weights):
        return class_wise_distance(x, y, xv, yv, train_weights=weights, threshold=1e-6)

    slope = jax.grad(distance)(weights)
    options = {"solver": "balanced", "epsilon": 0.05, "threshold": 1e-6}
    found = lava(x, y, xv, yv, train_weights=weights, **options)
    # weights are scaled to a sum of one inside, which takes the mean out of the derivative
    expected = found.f - jnp.sum(weights * found.f)
    spread = float(jnp.ptp(expected))
    np.testing.assert_allclose(slope, expected, atol=2e-3 * spread)
    np.testing.assert_allclose(found.distance, distance(weights), rtol=1e-4)
    np.testing.assert_allclose(
        calibrated_gradients(found.f, weights), expected / (1 - weights), atol=1e-4 * spread
    )


def test_derivative_in_the_weights_in_float64(x64):
    """The same to what float64 resolves, the balanced solver's own potentials beside it."""
    sets = two_sets()
    x, xv = (np.asarray(side, np.float64) for side in (sets[0], sets[2]))
    weights = np.random.default_rng(0).uniform(0.5, 1.5, 60)
    weights = jnp.asarray(weights / weights.sum())
    tight = {"threshold": 1e-12, "max_iterations": 20_000}

    def distance(weights):
        # label distances take the examples of a class alike, whatever they weigh
        return class_wise_distance(x, sets[1], xv, sets[3], train_weights=weights, **tight)

    slope = jax.grad(distance)(weights)
    found = lava(
        x, sets[1], xv, sets[3], solver="balanced", epsilon=0.05, train_weights=weights,
        num_checks=0, **tight,
    )  # fmt: skip
    expected = found.f - jnp.sum(weights * found.f)
    spread = float(jnp.ptp(expected))
    np.testing.assert_allclose(slope, expected, atol=1e-9 * spread)


@pytest.mark.parametrize(
    ("solver", "change"),
    [
        *(("annealed", change) for change in ("streamed", "kernel", 1, 2, 8)),
        *(("balanced", change) for change in ("streamed", "kernel", "ott", 2, 8)),
        ("semi-relaxed", "streamed"),
        ("semi-relaxed", 8),
    ],
)
def test_every_route_gives_the_same_values(solver, change):
    x, y, xv, yv, _ = two_sets()
    options = {"solver": solver, "epsilon": 0.05, "threshold": 1e-5, "num_checks": 0}
    expected = lava(x, y, xv, yv, route="materialised", **options)
    if isinstance(change, str):
        found = lava(x, y, xv, yv, route=change, **options)
    else:
        found = lava(x, y, xv, yv, mesh=data_mesh(jax.devices()[:change]), **options)
    spread = float(jnp.ptp(expected.values))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4 * spread)
    np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-4)
    assert found.converged == (solver != "annealed")


@pytest.fixture
def small_tiles(monkeypatch):
    """Call it for 8 rows to a tile; what is compiled for one size must not serve another."""

    def begin():
        monkeypatch.setattr(geometry_module, "tile_entries", lambda: 8 * 40)
        jax.clear_caches()

    yield begin
    jax.clear_caches()


@pytest.mark.parametrize("solver", ["annealed", "balanced", "semi-relaxed"])
@pytest.mark.parametrize("route", ["streamed", "kernel"])
@pytest.mark.parametrize("devices", [None, 4])
def test_streamed_in_several_tiles_and_over_devices(solver, route, devices, small_tiles):
    x, y, xv, yv, _ = two_sets(n=62)
    options = {"solver": solver, "epsilon": 0.05, "threshold": 1e-5, "num_checks": 0}
    expected = lava(x, y, xv, yv, route="materialised", **options)
    small_tiles()
    mesh = None if devices is None else data_mesh(jax.devices()[:devices])
    found = lava(x, y, xv, yv, route=route, mesh=mesh, **options)
    spread = float(jnp.ptp(expected.values))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4 * spread)
    np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-4)


def test_the_distance_and_its_slope_are_the_same_in_several_tiles(small_tiles):
    x, y, xv, yv, _ = two_sets(n=62)
    slope = jax.value_and_grad(lambda x: class_wise_distance(x, y, xv, yv, threshold=1e-6))
    expected, of_rows = slope(jnp.asarray(x))
    small_tiles()
    found, of_tiles = slope(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(of_tiles, of_rows, atol=1e-4 * float(jnp.ptp(of_rows)))


@pytest.mark.parametrize(("solver", "reductions"), [("balanced", 1), ("annealed", 2)])
def test_vectors_that_cross_devices_in_an_iteration(solver, reductions, monkeypatch):
    """Of length m, in the body of the loop; counted in what is traced."""
    x, y, xv, yv, _ = two_sets()
    crossing = []
    kept = jax.lax.psum, jax.lax.pmax

    def counting(reduce):
        def counted(value, axis_name, **options):
            crossing.append(jnp.shape(value))
            return reduce(value, axis_name, **options)

        return counted

    monkeypatch.setattr(jax.lax, "psum", counting(kept[0]))
    monkeypatch.setattr(jax.lax, "pmax", counting(kept[1]))
    jax.clear_caches()
    routes_module._sharded_solver.cache_clear()
    lava(x, y, xv, yv, solver=solver, mesh=data_mesh(jax.devices()[:2]), num_checks=0)
    routes_module._sharded_solver.cache_clear()
    loops = {"balanced": 1, "annealed": 4}[solver]
    # the annealed solver reads the cost before its loop, in it, and twice after it
    assert [shape for shape in crossing if shape == (40,)] == [(40,)] * reductions * loops


def test_streamed_over_a_mesh_with_a_certificate():
    x, y, xv, yv, _ = two_sets()
    options = {"solver": "balanced", "epsilon": 0.05, "threshold": 1e-5}
    found = lava(x, y, xv, yv, route="streamed", mesh=data_mesh(jax.devices()[:4]), **options)
    assert found.certificate.finite_difference_error < 1e-3


def test_sava_under_jit():
    x, y, xv, yv, _ = two_sets()
    values = lambda x, xv: sava(x, y, xv, yv, batch_size=20).values
    expected = values(x, xv)
    found = jax.jit(values)(x, xv)
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.ptp(expected)))


def test_values_under_jit():
    x, y, xv, yv, _ = two_sets()
    options = {"num_checks": 0, "threshold": 1e-5}
    compiled = jax.jit(lambda x, xv: lava(x, y, xv, yv, **options).values)
    expected = lava(x, y, xv, yv, **options).values
    np.testing.assert_allclose(compiled(x, xv), expected, atol=1e-4 * float(jnp.ptp(expected)))


def test_labels_may_be_any_integers():
    x, y, xv, yv, _ = two_sets()
    names = np.array([-7, 40, 1000])
    expected, found = lava(x, y, xv, yv), lava(x, names[y], xv, names[yv])
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
    assert found.train_classes.tolist() == names.tolist()


def test_soft_labels_of_one_class_are_hard_labels():
    x, y, xv, yv, _ = two_sets()
    expected = lava(x, y, xv, yv)
    found = lava(x, np.eye(3, dtype="f")[y], xv, np.eye(3, dtype="f")[yv])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)


@pytest.mark.parametrize("p", [1, 1.5])
def test_other_cost_exponents(p):
    x, y, xv, yv, wrong = two_sets()
    found = lava(x, y, xv, yv, p=p, solver="balanced", epsilon=0.05, threshold=1e-5)
    assert found.certificate.finite_difference_error < 2e-3
    assert np.isin(np.argsort(found.values)[:12], wrong).mean() > 0.7


# -- properties

small = st.integers(0, 10_000)


@settings(max_examples=8, deadline=None)
@given(seed=small, solver=st.sampled_from(["annealed", "semi-relaxed"]))
def test_permutation_equivariance(seed, solver):
    x, y, xv, yv, _ = two_sets()
    order = np.random.default_rng(seed).permutation(60)
    options = {"solver": solver, "num_checks": 0, "threshold": 1e-5}
    expected = lava(x, y, xv, yv, **options).values
    found = lava(x[order], y[order], xv, yv, **options).values
    np.testing.assert_allclose(found, expected[order], atol=1e-3 * float(jnp.ptp(expected)))


@settings(max_examples=8, deadline=None)
@given(seed=small)
def test_translation_and_rotation_of_the_features(seed):
    x, y, xv, yv, _ = two_sets()
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype("f")
    shift = rng.normal(size=4).astype("f") * 10
    options = {"num_checks": 0, "threshold": 1e-5}
    expected = lava(x, y, xv, yv, **options).values
    found = lava(x @ turn + shift, y, xv @ turn + shift, yv, **options).values
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.ptp(expected)))


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(0.1, 50))
def test_scale_of_the_weights(scale):
    x, y, xv, yv, _ = two_sets()
    weights = np.random.default_rng(1).uniform(0.5, 1.5, 60).astype("f")
    options = {"num_checks": 0, "threshold": 1e-5}
    expected = lava(x, y, xv, yv, train_weights=weights, **options).values
    found = lava(x, y, xv, yv, train_weights=weights * np.float32(scale), **options).values
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.ptp(expected)))


@settings(max_examples=4, deadline=None)
@given(seed=small)
def test_duplication_of_the_validation_set(seed):
    x, y, xv, yv, _ = two_sets()
    twice = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(xv)), 2))
    options = {"num_checks": 0, "threshold": 1e-5}
    expected = lava(x, y, xv, yv, **options).values
    found = lava(x, y, xv[twice], yv[twice], **options).values
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.ptp(expected)))


def test_weights_of_validation_examples_are_how_often_they_are_there():
    x, y, xv, yv, _ = two_sets()
    counts = np.tile([1, 3], 20)
    rows = np.repeat(np.arange(40), counts)
    # label distances take the examples of a class alike
    options = {"solver": "balanced", "epsilon": 0.05, "threshold": 1e-5, "label_weight": 0.0}
    expected = lava(x, y, xv[rows], yv[rows], **options).values
    found = lava(x, y, xv, yv, valid_weights=counts.astype("f"), **options).values
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.ptp(expected)))


# -- the distance


def test_distance_differentiates_in_the_features(x64):
    x, y, xv, yv, _ = two_sets(n=12, m=9, classes=2, d=2)
    x, xv = jnp.asarray(x, jnp.float64), jnp.asarray(xv, jnp.float64)

    def distance(x):
        return class_wise_distance(
            x, y, xv, yv, epsilon=2.0, relative_epsilon=False, threshold=1e-10
        )

    direction = jax.random.normal(jax.random.key(0), x.shape, jnp.float64)
    found, gradient = jax.jit(jax.value_and_grad(distance))(x)
    slope = jnp.vdot(gradient, direction)
    h = 1e-5
    compiled = jax.jit(distance)
    np.testing.assert_allclose(compiled(x), found, rtol=1e-9)
    change = (compiled(x + h * direction) - compiled(x - h * direction)) / (2 * h)
    # label distances have an ε of their own, which is held fixed by derivatives
    np.testing.assert_allclose(slope, change, rtol=2e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_of_well_solved_problems_with_classes_of_unlike_sizes(dtype, x64):
    """All that conjugate gradients are given there is round-off, with columns of no mass."""
    y, yv = np.arange(12) % 2, np.arange(9) % 2
    y[0] = 1

    @jax.jit
    def both(x, xv, direction):
        distance = lambda x: class_wise_distance(
            x, y, xv, yv, epsilon=2.0, relative_epsilon=False, threshold=1e-6
        )
        return distance(x), jnp.vdot(jax.grad(distance)(x), direction)

    h = {"float32": 1e-2, "float64": 1e-4}[dtype]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(2, 2)) * 3
        x, xv = (centres[of] + rng.normal(size=(len(of), 2)) for of in (y, yv))
        x, xv, direction = (a.astype(dtype) for a in (x, xv, rng.normal(size=x.shape)))
        (up, _), (down, _) = (both(x + s * direction, xv, direction) for s in (h, -h))
        slope = both(x, xv, direction)[1]
        np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=0.05)


def test_second_derivatives_by_the_implicit_function_theorem(x64):
    x, _, xv, _, _ = two_sets(n=8, m=6, classes=2, d=2)
    labels, valid = np.zeros(8, int), np.zeros(6, int)
    x, xv = jnp.asarray(x, jnp.float64), jnp.asarray(xv, jnp.float64)

    options = {"relative_epsilon": False, "label_weight": 0.0, "threshold": 1e-12}

    @jax.jit
    def slope(x):
        distance = lambda x: class_wise_distance(x, labels, xv, valid, epsilon=1.0, **options)
        return jax.grad(distance)(x)

    direction = jax.random.normal(jax.random.key(1), x.shape, jnp.float64)
    weights = jax.random.normal(jax.random.key(2), x.shape, jnp.float64)
    second = jax.jit(jax.grad(lambda x: jnp.vdot(slope(x), weights)))(x)
    h = 1e-5
    change = jnp.vdot(slope(x + h * direction) - slope(x - h * direction), weights) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(second, direction), change, rtol=1e-4)


def test_unbalanced_distance_is_what_its_plan_costs(x64):
    """A second route: the primal objective of the plan, cost and all three penalties."""
    sets = two_sets()
    x, xv = (np.asarray(side, np.float64) for side in (sets[0], sets[2]))
    epsilon, train_tau, tau = 0.5, 0.8, 0.9
    options = {"relative_epsilon": False, "label_weight": 0.0, "threshold": 1e-10}

    def distance(x):
        return class_wise_distance(
            x, sets[1], xv, sets[3], epsilon=epsilon, train_tau=train_tau, tau=tau, **options
        )

    found, slope = jax.value_and_grad(distance)(jnp.asarray(x))
    cost = np.sum((x[:, None] - xv[None]) ** 2, axis=-1) / 2
    a, b = jnp.full(60, 1 / 60), jnp.full(40, 1 / 40)
    solved = solve_transport(
        Geometry(jnp.asarray(cost)), a, b, epsilon=epsilon, tau_a=train_tau, tau_b=tau,
        threshold=1e-12, max_iterations=20_000,
    )  # fmt: skip
    plan = a[:, None] * b[None] * np.exp((solved.f[:, None] + solved.g[None] - cost) / epsilon)
    kl = lambda p, q: float(np.sum(p * np.log(p / q)) - np.sum(p) + np.sum(q))
    rho = lambda share: epsilon * share / (1 - share)
    primal = np.sum(plan * cost) + epsilon * kl(plan, np.outer(a, b))
    primal += rho(train_tau) * kl(plan.sum(1), np.asarray(a))
    primal += rho(tau) * kl(plan.sum(0), np.asarray(b))
    np.testing.assert_allclose(found, primal, rtol=1e-8)
    # by the envelope theorem the plan is held
    expected = plan.sum(1)[:, None] * x - plan @ xv
    np.testing.assert_allclose(slope, expected, atol=1e-7)
    with pytest.raises(InputError, match="train_tau must lie in"):
        class_wise_distance(x, sets[1], xv, sets[3], train_tau=0.0)


def test_distance_jits_and_is_lava_s():
    x, y, xv, yv, _ = two_sets()
    compiled = jax.jit(lambda x, xv: class_wise_distance(x, y, xv, yv))
    found = lava(x, y, xv, yv, solver="balanced", epsilon=0.05, threshold=1e-5)
    np.testing.assert_allclose(compiled(x, xv), found.distance, rtol=1e-3)


# -- groups, the nearest neighbour, batches


def test_groups_are_the_slope_of_moving_their_mass():
    x, y, xv, yv, _ = two_sets()
    groups = np.arange(60) % 4
    found = lava(x, y, xv, yv, solver="balanced", epsilon=0.05, threshold=1e-6)
    names, slopes = group_gradients(found.f, groups)
    assert names.tolist() == [0, 1, 2, 3]
    inside = groups == 2
    h = 0.05
    weights = np.where(inside, (0.25 + h) / inside.sum(), (0.75 - h) / (~inside).sum())
    less = np.where(inside, (0.25 - h) / inside.sum(), (0.75 + h) / (~inside).sum())
    options = {
        "solver": "balanced",
        "threshold": 1e-6,
        "epsilon": found.epsilon,
        "relative_epsilon": False,
        "label_weight": 0.0,
        "num_checks": 0,
    }
    found = lava(x, y, xv, yv, **options)
    _, slopes = group_gradients(found.f, groups)
    up, down = (
        lava(x, y, xv, yv, train_weights=w.astype("f"), **options).distance for w in (weights, less)
    )
    np.testing.assert_allclose(slopes[2], (up - down) / (2 * h), atol=5e-3 * np.ptp(slopes) + 5e-3)


def test_nearest_validation_by_hand():
    x, y, xv, yv, _ = two_sets()
    found = nearest_validation(x, y, xv, yv, label_weight=0.0)
    expected = -(((x[:, None] - xv[None]) ** 2).sum(-1) / 2).min(1)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)


def test_one_batch_of_sava_is_lava():
    x, y, xv, yv, _ = two_sets()
    options = {"threshold": 1e-5, "epsilon": 0.1, "tau": 0.8}
    expected = lava(x, y, xv, yv, solver="semi-relaxed", **options)
    found = sava(x, y, xv, yv, batch_size=64, **options)
    spread = float(jnp.ptp(expected.values))
    np.testing.assert_allclose(found.values, expected.values, atol=2e-4 * spread)


def test_batches_of_sava_agree_with_the_whole():
    x, y, xv, yv, _ = two_sets(n=400, m=200)
    whole = lava(x, y, xv, yv, solver="semi-relaxed", epsilon=0.05)
    parts = sava(x, y, xv, yv, batch_size=100)
    assert parts.batch_distances.shape == (4, 2)
    assert parts.converged
    ranks = [np.argsort(np.argsort(found.values)) for found in (whole, parts)]
    assert np.corrcoef(ranks)[0, 1] > 0.85


# -- bad input


def test_nan_is_named():
    x, y, xv, yv, _ = two_sets()
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(InputError, match=r"train_features holds 1 NaN .* first in example 3"):
        lava(bad, y, xv, yv)
    with pytest.raises(InputError, match="valid_features holds 1 NaN"):
        lava(xv, yv, bad, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_features": np.ones((60, 4), "f"), "valid_features": np.ones((40, 4), "f")},
            "cons",
        ),
        ({"valid_features": np.ones((40, 5), "f")}, "4 columns and valid_features 5"),
        ({"train_labels": np.zeros(59, int)}, "60 rows and train_labels 59"),
        ({"valid_labels": np.zeros(40, "f")}, "valid_labels are float32, not integers"),
        ({"train_weights": np.full(60, -1, "f")}, r"train_weights\[0\] is -1.0: masses must"),
        ({"valid_weights": np.zeros(40, "f")}, r"valid_weights\[0\] is 0.0: masses must"),
        ({"train_weights": np.ones(3, "f")}, r"train_weights must have shape \[60\]"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": 1e-9, "solver": "balanced"}, "below what float32 resolves"),
        ({"label_epsilon": 1e-9}, "label_epsilon=1e-09 is below what float32 resolves"),
        ({"tau": 0.0}, "tau must lie in"),
        ({"tau": 1.5}, "tau must lie in"),
        ({"p": 0.5}, "p must be 1 or more"),
        ({"p": 1, "route": "kernel"}, "route='kernel' needs p=2"),
        ({"solver": "exact"}, "solver must be"),
        ({"label_cost": "half"}, "label_cost must be"),
        ({"num_checks": -1}, "num_checks must be"),
        ({"contrast": 1.5}, r"contrast must lie in \[0, 1\]"),
        ({"train_features": np.zeros((0, 4), "f"), "train_labels": np.zeros(0, int)}, "is empty"),
        ({"train_features": np.ones((1, 4), "f"), "train_labels": np.zeros(1, int)}, "only one"),
        ({"train_labels": np.full((60, 3), 0.5, "f")}, r"train_labels\[0\] sum to 1.5"),
    ],
)
def test_bad_input_gets_one_line(change, message):
    x, y, xv, yv, _ = two_sets()
    sets = {"train_features": x, "train_labels": y, "valid_features": xv, "valid_labels": yv}
    options = {name: value for name, value in change.items() if name not in sets}
    sets |= {name: value for name, value in change.items() if name in sets}
    with pytest.raises(InputError, match=message) as caught:
        lava(*sets.values(), **options)
    assert "\n" not in str(caught.value)


def test_classes_that_one_side_lacks():
    x, y, xv, yv, _ = two_sets()
    # the same number of examples, so that the solver's program serves
    with pytest.warns(ValuationWarning, match=r"valid_labels have classes \[2\] that train_labels"):
        found = lava(x, np.minimum(y, 1), xv, yv)
    assert found.values.shape == (60,)
    assert found.label_distances.shape == (2, 3)
    assert found.train_classes.tolist() == [0, 1]
    with pytest.warns(ValuationWarning, match=r"train_labels have classes \[2\] that valid_labels"):
        found = lava(x, y, xv, np.minimum(yv, 1))
    assert found.label_distances.shape == (3, 2)
    assert np.isfinite(found.values).all()


def test_one_example_per_class():
    x, _, xv, yv, _ = two_sets()
    with pytest.warns(ValuationWarning, match="single example"):
        found = lava(x[:3], np.arange(3), xv, yv)
    assert np.isfinite(found.values).all()


@pytest.mark.slow
def test_a_thousand_classes():
    rng = np.random.default_rng(0)
    centres = (rng.normal(size=(1000, 16)) * 3).astype("f")
    y, yv = np.arange(4000) % 1000, np.arange(2000) % 1000
    x, xv = (centres[of] + rng.normal(size=(len(of), 16)).astype("f") for of in (y, yv))
    wrong = np.arange(4000) < 400
    given = np.where(wrong, (y + 500) % 1000, y)
    found = lava(x, given, xv, yv, num_checks=0)
    assert found.label_distances.shape == (1000, 1000)
    # every class lies nearest to itself
    assert (np.argmin(found.label_distances, axis=1) == np.arange(1000)).mean() > 0.99
    assert np.isin(np.argsort(found.values)[:400], np.flatnonzero(wrong)).mean() > 0.9


def test_a_solve_that_stopped_early_is_flagged():
    x, y, xv, yv, _ = two_sets()
    found = lava(x, y, xv, yv, solver="balanced", epsilon=0.005, max_iterations=5, num_checks=0)
    assert not found.converged
    assert found.marginal_error > 1e-3
    assert np.isnan(found.certificate.finite_difference_error)


def test_label_distances_that_stopped_early_are_flagged():
    x, y, xv, yv, _ = two_sets()
    options = {"solver": "balanced", "epsilon": 0.05, "num_checks": 0}
    assert lava(x, y, xv, yv, **options).label_error <= 1e-2
    with pytest.warns(ValuationWarning, match="label distances stopped early"):
        found = lava(x, y, xv, yv, label_epsilon=1e-5, **options)
    # the transport itself was solved
    assert found.marginal_error <= 1e-3
    assert found.label_error > 1e-2
    assert not found.converged
    with pytest.warns(ValuationWarning, match="label distances stopped early"):
        assert not sava(x, y, xv, yv, batch_size=30, label_epsilon=1e-5).converged


def test_a_distance_that_stopped_early_warns():
    x, y, xv, yv, _ = two_sets()
    with pytest.warns(ValuationWarning, match="the transport stopped early, at a marginal error"):
        class_wise_distance(x, y, xv, yv, epsilon=1e-3, max_iterations=3)
    with pytest.warns(ValuationWarning, match="label distances stopped early"):
        class_wise_distance(x, y, xv, yv, label_epsilon=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "annealed"}, "route='ott' solves solver='balanced' alone, not 'annealed'"),
        ({"solver": "balanced", "mesh": True}, "route='ott' takes no mesh"),
    ],
)
def test_what_ott_is_not_given(options, message):
    x, y, xv, yv, _ = two_sets()
    if "mesh" in options:
        options = options | {"mesh": data_mesh(jax.devices()[:2])}
    with pytest.raises(InputError, match=message):
        lava(x, y, xv, yv, route="ott", **options)


def test_traced_labels_are_refused():
    x, y, xv, yv, _ = two_sets()
    with pytest.raises(InputError, match="train_labels are traced"):
        jax.jit(lambda y: lava(x, y, xv, yv, num_checks=0).values)(y)
