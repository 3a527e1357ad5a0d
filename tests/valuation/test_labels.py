"""What a label is known by: distances between classes, soft shares, targets cut into classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxinf.errors import InputError
from jaxinf.valuation import (
    ValuationWarning,
    bin_targets,
    class_wise_distance,
    lava,
    nearest_validation,
)
from jaxinf.valuation.classes import class_blocks
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.label_distances import label_distances

solve = jax.jit(label_distances, static_argnames=("p", "differentiable"))


def clusters(sizes, seed=0, d=2):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(len(labels))
    x = rng.normal(size=(len(labels), d)) + 2 * labels[:, None]
    return x[order].astype("f"), labels[order]


def test_distance_of_two_classes_is_the_exact_assignment_at_small_epsilon():
    x, y = clusters((12, 12))
    xv, yv = clusters((12, 12), seed=1)
    found = solve(
        x, *class_blocks(y, 2), xv, *class_blocks(yv, 2), epsilon=5e-3, max_iterations=20_000
    )
    for i in range(2):
        for j in range(2):
            cost = ((x[y == i][:, None] - xv[yv == j][None]) ** 2).sum(-1) / 2
            exact = cost[linear_sum_assignment(cost)].mean()
            # the entropic term is at most ε log n
            assert exact - 2e-3 <= found[i, j] <= exact + 5e-3 * cost.mean() * np.log(12) + 2e-3


def test_distances_that_stopped_early_are_said():
    x, y = clusters((30, 30), d=4)
    xv, yv = clusters((20, 20), seed=1, d=4)
    with pytest.warns(
        ValuationWarning, match=r"of 4 label distances stopped early: marginal error"
    ):
        nearest_validation(x, y, xv, yv, label_epsilon=1e-5)


def test_distance_of_two_classes_is_that_of_the_sets_alone():
    """A second route: the distance between two unlabelled sets. Unlike sizes, so with padding."""
    x, y = clusters((5, 9, 3))
    xv, yv = clusters((4, 8), seed=1)
    options = {"epsilon": 0.05, "threshold": 1e-5}
    found = solve(x, *class_blocks(y, 3), xv, *class_blocks(yv, 2), **options)
    for i, j in ((1, 0), (2, 1)):
        part, other = x[y == i], xv[yv == j]
        zeros = [np.zeros(len(side), int) for side in (part, other)]
        alone = class_wise_distance(part, zeros[0], other, zeros[1], label_weight=0.0, **options)
        np.testing.assert_allclose(found[i, j], alone, rtol=1e-4)


def test_soft_labels_cost_the_mean_over_their_shares():
    """Known answer: s' W s, and a class made of shares of examples."""
    rng = np.random.default_rng(0)
    x, xv = rng.normal(size=(6, 3)).astype("f"), rng.normal(size=(5, 3)).astype("f")
    soft, valid = (rng.dirichlet(np.ones(c), len(s)).astype("f") for c, s in ((3, x), (2, xv)))
    table = rng.uniform(size=(3, 2)).astype("f")
    arrays = map(jnp.asarray, (x, xv, soft, valid, table))
    geometry = ClassWiseGeometry(*arrays, label_weight=0.7)
    apart = ((x[:, None] - xv[None]) ** 2).sum(-1) / 2
    np.testing.assert_allclose(
        geometry.cost_matrix, apart + 0.7 * soft @ table @ valid.T, rtol=1e-5
    )
    blocks = class_blocks(soft, 3)
    for c in range(3):
        held = np.zeros(6)
        np.add.at(held, blocks.rows[c], blocks.weights[c])
        np.testing.assert_allclose(held, soft[:, c] / soft[:, c].sum(), rtol=1e-5)


def test_soft_labels_see_a_wrong_mixture():
    x, y = clusters((30, 30))
    xv, yv = clusters((20, 20), seed=1)
    shares = np.where(np.arange(2) == y[:, None], 0.9, 0.1).astype("f")
    wrong = np.arange(60) < 8
    shares[wrong] = shares[wrong, ::-1]
    found = lava(x, shares, xv, np.eye(2, dtype="f")[yv], num_checks=0)
    assert np.isin(np.argsort(found.values)[:8], np.flatnonzero(wrong)).mean() > 0.7


def test_targets_of_a_regression_are_cut_at_quantiles_of_the_validation_targets():
    rng = np.random.default_rng(0)
    x, xv = rng.normal(size=(80, 1)).astype("f"), rng.normal(size=(60, 1)).astype("f")
    targets, valid = (3 * side[:, 0] + 0.1 * rng.normal(size=len(side)) for side in (x, xv))
    wrong = np.arange(80) < 8
    targets[wrong] = -targets[wrong]
    y, yv = bin_targets(targets, valid, num_bins=4)
    assert np.bincount(yv).tolist() == [15, 15, 15, 15]
    assert ((y >= 0) & (y < 4)).all()
    # a class is an interval of the target: both sides are cut at the same places
    for c in range(3):
        assert max(targets[y == c].max(), valid[yv == c].max()) <= valid[yv == c + 1].min()
    found = lava(x, y, xv, yv, num_checks=0)
    far = wrong & (np.abs(targets) > 1.5)
    assert found.values[far].mean() < found.values[~wrong].mean()


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (np.zeros((3, 2)), {}, "train_targets must be one number per example"),
        (np.array([0.0, np.nan]), {}, "train_targets holds 1 NaN"),
        (np.zeros(3), {"num_bins": 1}, "num_bins must be at least 2"),
    ],
)
def test_targets_that_cannot_be_cut(targets, options, message):
    with pytest.raises(InputError, match=message):
        bin_targets(targets, np.arange(4.0), **options)


@pytest.mark.parametrize("classes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_few_classes(classes):
    x, y = clusters((32 // classes,) * classes)
    xv, yv = clusters((20 // classes,) * classes, seed=1)
    found = lava(x, y, xv, yv, num_checks=0)
    assert found.label_distances.shape == (classes, classes)
    assert (np.argmin(found.label_distances, axis=1) == np.arange(classes)).all()
    assert np.isfinite(found.values).all()
