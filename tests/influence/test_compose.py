"""Any direction with any scorer, normaliser and ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convex import PENALTY, logistic
from problems import relative

from jaxinf import InputError, attribute
from jaxinf.engine import Stream, as_source
from jaxinf.influence import (
    checkpoint_direction,
    ensemble,
    from_direction,
    grad_dot,
    influence_function,
    inverse_curvature_direction,
    mirrored_unroll,
    normalise_by_gradient_norm,
    over_checkpoints,
    stack_checkpoints,
    sum_directions,
    unrolled_direction,
    update_direction,
)
from jaxinf.influence.queries import as_groups

SCORERS = ("jvp", "finite", "gradients", "ghost", "factored")


def penalty(w):
    return PENALTY / 2 * jnp.sum(w**2)


UNROLLING = {"optimizer": optax.sgd(1.0), "steps": 20, "penalty": penalty}


def run(method, problem, params=None):
    params = problem.params if params is None else params
    return attribute(method, params, problem.queries, problem.train, progress=False).scores


@pytest.fixture
def problem(x64):
    return logistic(np.float64)


DIRECTIONS = {
    "gradient": lambda loss: update_direction(loss, optax.sgd(1e-5)),
    "adam": lambda loss: update_direction(loss, optax.adam(1e-5), steps=2),
    "curvature": lambda loss: inverse_curvature_direction(loss, solver="exact", damping=PENALTY),
    "unrolled": lambda loss: unrolled_direction(loss, **UNROLLING),
    "checkpoints": lambda loss: checkpoint_direction(
        update_direction(loss, optax.sgd(1e-5)), jnp.ones((2, 4, 3)), [1.0, 2.0]
    ),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_direction_goes_with_every_scorer(problem, name):
    direction = DIRECTIONS[name](problem.loss_fn)
    scores = [run(from_direction(direction, problem.loss_fn, scorer=s), problem) for s in SCORERS]
    for exact in scores[2:]:
        assert relative(exact, scores[0]) < 1e-10
    # a finite step differs by its size
    assert 0 < relative(scores[1], scores[0]) < 0.2


def test_they_are_the_methods_of_those_names(problem):
    gradient = update_direction(problem.loss_fn, optax.sgd(1.0))
    found = run(from_direction(gradient, problem.loss_fn), problem)
    assert relative(found, run(grad_dot(problem.loss_fn), problem)) < 1e-12
    options = {"solver": "exact", "damping": PENALTY}
    curved = inverse_curvature_direction(problem.loss_fn, **options)
    found = run(from_direction(curved, problem.loss_fn), problem)
    assert relative(found, run(influence_function(problem.loss_fn, **options), problem)) < 1e-12
    assert relative(found, problem.influence) < 1e-9


@pytest.mark.parametrize("displacement", ["finite", "derivative"])
@pytest.mark.parametrize("scorer", ["auto", "finite"])
def test_the_unrolled_direction_is_mirrored_unroll(problem, displacement, scorer):
    options = UNROLLING | {"displacement": displacement}
    whole = mirrored_unroll(problem.loss_fn, scorer=scorer, **options)
    direction = unrolled_direction(problem.loss_fn, **options)
    parts = from_direction(direction, problem.loss_fn, scorer=scorer)
    # at the minimum, where the steps without the query stay
    assert relative(run(parts, problem), run(whole, problem)) < 1e-9
    # away from it the direction is the same, and what follows it is elsewhere
    away, train = 1.5 * problem.params, Stream(as_source(problem.train), 16)
    state = whole.prepare(away, problem.queries, train)
    moved = direction(away, as_groups(problem.queries), train)
    np.testing.assert_array_equal(moved, state.directions)
    assert relative(state.params, away) > 0.1
    given = from_direction(lambda *_: moved, problem.loss_fn, scorer=scorer)
    scored = jax.jit(whole.score)(state, problem.train)
    assert relative(run(given, problem, state.params), scored) < 1e-9


def test_a_direction_over_checkpoints(problem):
    """By hand: the queries' gradients at two other models, along one model's training side."""
    loss, models = problem.loss_fn, [0.5 * problem.params, 2.0 * problem.params]
    plain = update_direction(loss, optax.sgd(1.0))
    direction = checkpoint_direction(plain, stack_checkpoints(models), [0.3, 0.1])
    found = run(from_direction(direction, loss), problem)
    x, y = problem.queries["x"], problem.queries["y"]
    total = 0
    for weight, model in zip([0.3, 0.1], models, strict=True):
        logits = x @ np.asarray(model)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        slopes = np.einsum("kd,kc->kdc", x, p - np.eye(3)[y]).reshape(len(x), -1)
        total = total + weight * slopes @ problem.train_gradients.T
    assert relative(found, total) < 1e-10
    # one that passes over the training set is handed it at every checkpoint
    curved = inverse_curvature_direction(loss, solver="exact", damping=PENALTY)
    twice = checkpoint_direction(curved, stack_checkpoints([problem.params] * 2), [0.5, 0.25])
    assert relative(run(from_direction(twice, loss), problem), 0.75 * problem.influence) < 1e-9


def test_sums_normalisers_checkpoints_and_ensembles_go_around_them(problem):
    loss = problem.loss_fn
    gradient = update_direction(loss, optax.sgd(0.1))
    curved = inverse_curvature_direction(loss, solver="exact", damping=PENALTY)
    a, b = (run(from_direction(d, loss), problem) for d in (gradient, curved))
    summed = sum_directions([gradient, curved], [2.0, -0.5])
    assert relative(run(from_direction(summed, loss), problem), 2 * a - b / 2) < 1e-10
    members = [from_direction(d, loss) for d in (gradient, curved)]
    both = ensemble(members, [2.0, -0.5])
    found = run(both, problem, (problem.params, problem.params))
    assert relative(found, 2 * a - b / 2) < 1e-10
    normalised = normalise_by_gradient_norm(members[1], loss)
    norms = np.linalg.norm(problem.train_gradients, axis=1)
    assert relative(run(normalised, problem), b / norms) < 1e-8
    models = stack_checkpoints([problem.params, problem.params])
    found = run(over_checkpoints(members[1], [0.5, 0.25]), problem, models)
    assert relative(found, 0.75 * b) < 1e-10


def test_bad_directions_are_refused(problem):
    loss = problem.loss_fn
    whole = lambda params, queries, train=None: params
    with pytest.raises(InputError, match="leading axis of 5 queries"):
        run(from_direction(whole, loss), problem)
    with pytest.raises(InputError, match="1 directions but 2 weights"):
        sum_directions([whole], [1.0, 2.0])
    with pytest.raises(InputError, match="scorer must be"):
        from_direction(whole, loss, scorer="reverse")
    with pytest.raises(InputError, match="no leading axis of 2 checkpoints"):
        checkpoint_direction(whole, problem.params, [1.0, 2.0])
    for options, match in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"query_chunk": 0}, "query_chunk must be"),
    ):
        with pytest.raises(InputError, match=match):
            unrolled_direction(loss, **(UNROLLING | options))
    unrolled = unrolled_direction(loss, **UNROLLING)
    with pytest.raises(InputError, match="unrolled_direction passes over the training set"):
        unrolled(problem.params, as_groups(problem.queries))


def test_a_direction_of_ones_own(problem):
    shift = jnp.arange(12.0).reshape(problem.params.shape)
    still = lambda params, queries, train=None: jnp.stack([shift] * queries.size)
    found = run(from_direction(still, problem.loss_fn, name="shift"), problem)
    assert relative(found, np.tile(-problem.train_gradients @ np.arange(12), (5, 1))) < 1e-9
