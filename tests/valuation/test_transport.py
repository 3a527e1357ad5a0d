"""Transport against closed forms, scipy's exact solver and ott's own; and every route alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.optimize import linear_sum_assignment, linprog

from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.transport import solve_transport


@pytest.fixture
def ott_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def points(n, m, d=3, seed=0, classes=3, p=2, tile_rows=None):
    keys = jax.random.split(jax.random.key(seed), 5)
    x = jax.random.normal(keys[0], (n, d))
    y = jax.random.normal(keys[1], (m, d)) + 0.5
    table = jax.random.uniform(keys[2], (classes, classes)) * 2
    return ClassWiseGeometry(
        x,
        y,
        jax.random.randint(keys[3], (n,), 0, classes),
        jax.random.randint(keys[4], (m,), 0, classes),
        table,
        feature_weight=0.7,
        label_weight=1.3,
        p=p,
        tile_rows=tile_rows,
    )


def masses(count, seed=None):
    if seed is None:
        return jnp.full(count, 1 / count)
    drawn = jax.random.uniform(jax.random.key(seed), (count,), minval=0.2)
    return drawn / drawn.sum()


def value(geometry, a, b, epsilon, **options):
    found = solve_transport(geometry, a, b, epsilon=epsilon, **options)
    assert bool(found.converged), float(found.marginal_error)
    return float(a @ found.f + b @ found.g), found


def unlabelled(x, y):
    none = jnp.zeros(len(x), jnp.int32), jnp.zeros(len(y), jnp.int32)
    return ClassWiseGeometry(jnp.asarray(x), jnp.asarray(y), *none, jnp.zeros((1, 1)))


def test_cost_is_what_its_definition_says():
    for p in (1, 1.5, 2):
        geometry = points(7, 5, p=p)
        x, y = np.asarray(geometry.x), np.asarray(geometry.y)
        apart = np.linalg.norm(x[:, None] - y[None], axis=-1) ** p / p
        table = np.asarray(geometry.label_distances)
        labels = table[np.asarray(geometry.x_labels)][:, np.asarray(geometry.y_labels)]
        np.testing.assert_allclose(geometry.cost_matrix, 0.7 * apart + 1.3 * labels, rtol=2e-5)


def test_soft_labels_of_one_class_are_its_label():
    hard = points(6, 5)
    one_hot = lambda labels: jax.nn.one_hot(labels, 3)
    soft = ClassWiseGeometry(
        hard.x,
        hard.y,
        one_hot(hard.x_labels),
        one_hot(hard.y_labels),
        hard.label_distances,
        feature_weight=0.7,
        label_weight=1.3,
    )
    np.testing.assert_allclose(soft.cost_matrix, hard.cost_matrix, rtol=1e-6)


def test_one_dimension_sorted_points():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 1)).astype("f"), rng.normal(2, 2, size=(40, 1)).astype("f")
    exact = np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2) / 2
    a = masses(40)
    found, _ = value(unlabelled(x, y), a, a, 2e-3, max_iterations=50_000)
    assert abs(found - exact) < 0.01 * exact


def test_gaussian_bures_distance():
    """A linear map that is symmetric and positive is optimal: the Bures formula is then exact."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    x -= x.mean(0)
    stretch = np.array([[1.5, 0.3], [0.3, 0.7]])
    shift = np.array([2.0, -1.0])
    y = x @ stretch + shift
    cov = x.T @ x / len(x)
    root = lambda m: (lambda w, v: v @ np.diag(np.sqrt(w)) @ v.T)(*np.linalg.eigh(m))
    other = stretch @ cov @ stretch
    cross = root(root(cov) @ other @ root(cov))
    bures = (shift @ shift + np.trace(cov + other - 2 * cross)) / 2
    a = masses(60)
    geometry = unlabelled(x.astype("f"), y.astype("f"))
    found, _ = value(geometry, a, a, 2e-3, max_iterations=50_000)
    assert abs(found - bures) < 0.01 * bures


@pytest.mark.parametrize("held", [True, False])
def test_small_epsilon_reaches_the_exact_assignment(held):
    geometry = points(30, 30)
    cost = np.asarray(geometry.cost_matrix)
    rows, columns = linear_sum_assignment(cost)
    exact = cost[rows, columns].mean()
    solved = Geometry(geometry.cost_matrix) if held else geometry
    found, _ = value(solved, masses(30), masses(30), 2e-3, max_iterations=100_000)
    # the entropic term is at most ε log n
    assert exact - 1e-3 <= found <= exact + 2e-3 * np.log(30) + 1e-3


def test_weights_against_linear_programming():
    geometry = points(12, 9)
    a, b = masses(12, 1), masses(9, 2)
    cost = np.asarray(geometry.cost_matrix, np.float64)
    of_rows = np.kron(np.eye(12), np.ones(9))
    of_columns = np.kron(np.ones(12), np.eye(9))
    exact = linprog(
        cost.ravel(), A_eq=np.vstack([of_rows, of_columns]), b_eq=np.concatenate([a, b])
    ).fun
    found, _ = value(geometry, a, b, 2e-3, max_iterations=100_000)
    assert abs(found - exact) < 0.01 * exact + 2e-3 * np.log(12)


@pytest.mark.filterwarnings("ignore")
def test_small_epsilon_reaches_pot_s_exact_plan():
    """The same by POT's network simplex, where POT is installed."""
    ot = pytest.importorskip("ot")
    geometry = points(30, 30)
    a, b = masses(30, 1), masses(30, 2)
    cost = np.asarray(geometry.cost_matrix, np.float64)
    # POT wants masses that sum to one in float64
    exact = ot.emd2(*(m / m.sum() for m in (np.asarray(w, np.float64) for w in (a, b))), cost)
    found, _ = value(Geometry(geometry.cost_matrix), a, b, 2e-3, max_iterations=100_000)
    assert exact - 1e-3 <= found <= exact + 2e-3 * np.log(30) + 1e-3


@functools.cache
def solved_by_ott(epsilon):
    problem = LinearProblem(
        Geometry(points(40, 30).cost_matrix, epsilon=epsilon), masses(40, 3), masses(30, 4)
    )
    return Sinkhorn(threshold=1e-6, max_iterations=20_000)(problem)


@pytest.mark.parametrize("held", [True, False])
def test_potentials_are_ott_s(held, ott_promotes_ranks):
    geometry = points(40, 30, tile_rows=None if held else 7)
    a, b = masses(40, 3), masses(30, 4)
    epsilon = 0.1
    reference = solved_by_ott(epsilon)
    solved = Geometry(geometry.cost_matrix) if held else geometry
    found = solve_transport(solved, a, b, epsilon=epsilon, threshold=1e-6, max_iterations=20_000)
    f = found.f + epsilon * jnp.log(a)
    g = found.g + epsilon * jnp.log(b)
    shift = jnp.mean(reference.f - f)
    np.testing.assert_allclose(f + shift, reference.f, atol=2e-4)
    np.testing.assert_allclose(g - shift, reference.g, atol=2e-4)


def test_ott_solves_the_streamed_geometry(ott_promotes_ranks):
    geometry = points(40, 30, tile_rows=7)
    geometry = geometry.tree_unflatten(
        {"p": 2, "tile_rows": 7}, [*geometry.tree_flatten()[0][:-1], 0.1]
    )
    a, b = masses(40, 3), masses(30, 4)
    solver = Sinkhorn(threshold=1e-4)
    streamed = solver(LinearProblem(geometry, a, b))
    held = solver(LinearProblem(Geometry(geometry.cost_matrix, epsilon=0.1), a, b))
    np.testing.assert_allclose(streamed.f, held.f, atol=1e-4)
    np.testing.assert_allclose(streamed.reg_ot_cost, held.reg_ot_cost, rtol=1e-5)
    np.testing.assert_allclose(
        geometry.apply_transport_from_potentials(streamed.f, streamed.g, jnp.ones(30), axis=1),
        a,
        rtol=1e-3,
    )


@pytest.mark.parametrize("tau_b", [0.0, 0.5, 0.95])
def test_semi_relaxed_meets_its_optimality_conditions(tau_b):
    geometry = points(25, 20)
    a, b, epsilon = masses(25, 5), masses(20, 6), 0.05
    found = solve_transport(geometry, a, b, epsilon=epsilon, tau_b=tau_b, threshold=1e-6)
    assert bool(found.converged)
    exponents = (found.f[:, None] + found.g[None, :] - geometry.cost_matrix) / epsilon
    plan = a[:, None] * b[None, :] * jnp.exp(exponents)
    np.testing.assert_allclose(plan.sum(1), a, rtol=1e-4)
    if tau_b == 0:
        np.testing.assert_allclose(found.g, 0, atol=1e-7)
    else:
        rho = epsilon * tau_b / (1 - tau_b)
        np.testing.assert_allclose(plan.sum(0), b * jnp.exp(-found.g / rho), rtol=1e-3)


@pytest.mark.parametrize("held", [True, False])
def test_unbalanced_on_both_sides_meets_its_optimality_conditions(held):
    geometry = points(25, 20)
    a, b, epsilon, tau_a, tau_b = masses(25, 5), masses(20, 6), 0.05, 0.8, 0.9
    solved = Geometry(geometry.cost_matrix) if held else geometry
    found = solve_transport(solved, a, b, epsilon=epsilon, tau_a=tau_a, tau_b=tau_b, threshold=1e-6)
    assert bool(found.converged)
    exponents = (found.f[:, None] + found.g[None, :] - geometry.cost_matrix) / epsilon
    plan = a[:, None] * b[None, :] * jnp.exp(exponents)
    for sums, mass, potential, tau in (
        (plan.sum(1), a, found.f, tau_a),
        (plan.sum(0), b, found.g, tau_b),
    ):
        rho = epsilon * tau / (1 - tau)
        np.testing.assert_allclose(sums, mass * jnp.exp(-potential / rho), rtol=1e-3)


def test_semi_relaxed_is_ott_s_unbalanced_problem(ott_promotes_ranks):
    geometry = points(25, 20)
    a, b, epsilon, tau = masses(25), masses(20), 0.05, 0.9
    ott = Sinkhorn(threshold=1e-5, max_iterations=20_000)(
        LinearProblem(Geometry(geometry.cost_matrix, epsilon=epsilon), a, b, tau_b=tau)
    )
    found = solve_transport(geometry, a, b, epsilon=epsilon, tau_b=tau, threshold=1e-6)
    # ott's reference measure counts points where ours has masses: one constant apart
    np.testing.assert_allclose(
        found.f - found.f.mean(), ott.f - ott.f.mean(), atol=1e-3 * float(ott.f.std())
    )


def test_zero_masses_are_left_out():
    geometry = points(20, 15)
    a = masses(20).at[13:].set(0) * 20 / 13
    b = masses(15).at[11:].set(0) * 15 / 11
    far = ClassWiseGeometry(
        geometry.x.at[13:].set(1e3),
        geometry.y.at[11:].set(-1e3),
        geometry.x_labels,
        geometry.y_labels,
        geometry.label_distances,
        feature_weight=0.7,
        label_weight=1.3,
    )
    part = ClassWiseGeometry(
        geometry.x[:13],
        geometry.y[:11],
        geometry.x_labels[:13],
        geometry.y_labels[:11],
        geometry.label_distances,
        feature_weight=0.7,
        label_weight=1.3,
    )
    expected, _ = value(part, masses(13), masses(11), 0.1)
    for solved in (far, Geometry(far.cost_matrix)):
        found, _ = value(solved, a, b, 0.1)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_column_of_no_mass_may_be_cheap_beyond_what_a_float_holds():
    """Its price stays 0, where the other columns' are far below: its kernel would overflow."""
    cost = jnp.tile(jnp.array([0.0, 200.0, 0.0]), (4, 1))
    b = jnp.array([0.5, 0.5, 0.0])
    found = solve_transport(
        Geometry(cost), masses(4), b, epsilon=1.0, init=jnp.array([-200.0, 0.0, 0.0])
    )
    assert bool(found.converged)
    np.testing.assert_allclose(masses(4) @ found.f + b @ found.g, 100, rtol=1e-5)


def test_over_relaxation_saves_iterations(ott_promotes_ranks):
    """With the relaxation held at one, the same solve takes at least twice as many iterations."""
    geometry = Geometry(points(100, 100, seed=3).cost_matrix)
    a = masses(100)
    _, fast = value(geometry, a, a, 0.01, threshold=1e-4, max_iterations=20_000)
    plain = Sinkhorn(threshold=1e-4, max_iterations=20_000, inner_iterations=1)(
        LinearProblem(Geometry(geometry.cost_matrix, epsilon=0.01), a, a)
    )
    taken = int(np.sum(np.asarray(plain.errors) >= 0))
    assert int(fast.num_iterations) < taken / 2


def test_gives_up_and_says_so():
    geometry = points(30, 30)
    found = solve_transport(
        geometry, masses(30), masses(30), epsilon=1e-3, threshold=1e-7, max_iterations=10
    )
    assert not bool(found.converged)
    assert float(found.marginal_error) > 1e-7
