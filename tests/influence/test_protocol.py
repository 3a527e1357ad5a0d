"""Every attributor keeps the same promises."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem, relative

from jaxinf import attribute, influence
from jaxinf.engine import Stream, as_source
from jaxinf.errors import InputError
from jaxinf.influence import Attributor

# a difference of losses is only as exact as it is large beside them
STEP = optax.sgd(0.1)
FACTORIES = {
    "forward_inf": lambda loss: influence.forward_inf(loss, optimizer=STEP),
    "forward_inf_jvp": lambda loss: influence.forward_inf_jvp(loss),
    "grad_dot": lambda loss: influence.grad_dot(loss),
    "grad_cos": lambda loss: influence.grad_cos(loss),
    "normalise_by_loss": lambda loss: influence.normalise_by_loss(influence.grad_dot(loss), loss),
    "normalise_by_gradient_norm": lambda loss: influence.normalise_by_gradient_norm(
        influence.forward_inf(loss, optimizer=STEP), loss
    ),
    "representation_similarity": lambda loss: influence.representation_similarity(
        lambda params, batch: batch["x"]
    ),
    "from_direction": lambda loss: influence.from_direction(
        influence.update_direction(loss, optax.adam(1e-3)), loss
    ),
    "normalise_by_self_influence": lambda loss: influence.normalise_by_self_influence(
        influence.grad_dot(loss)
    ),
    "released_forward_inf": lambda loss: influence.released_forward_inf(
        lambda params, state, batch, *, train: (loss(params, batch), state), key=jax.random.key(0)
    ),
}

# their query side passes over the training set
WITH_TRAIN = {
    "influence_function": lambda loss: influence.influence_function(loss, damping=10.0),
    "mirrored_unroll": lambda loss: influence.mirrored_unroll(
        loss, optimizer=optax.sgd(0.05), steps=2
    ),
    "trak": lambda loss: influence.trak(loss, projection_dim=8, key=jax.random.key(0), damping=1.0),
    "logra": lambda loss: influence.logra(loss, rank=3, key=jax.random.key(0)),
    "knn_attribution": lambda loss: influence.knn_attribution(
        lambda params, batch: batch["x"], num_classes=4
    ),
}
# their parameters are several models', their loss comes in two parts, or they look at texts and
# hashes: tested on their own
OTHERS = {
    "bm25",
    "early_ensemble",
    "ensemble",
    "over_checkpoints",
    "representer_points",
    "signature_match",
    "tracin",
    "weight_by_doubt",
}


@pytest.fixture(scope="module")
def base():
    return make_problem("mlp")


def build(name, problem):
    method = FACTORIES[name](problem.loss_fn)
    params = (problem.params, ()) if name == "released_forward_inf" else problem.params
    return method, params


def test_every_public_factory_is_here():
    public = {
        name
        for name in influence.__all__
        if inspect.isfunction(getattr(influence, name))
        if inspect.signature(getattr(influence, name)).return_annotation is Attributor
    }
    assert public == {*FACTORIES, *WITH_TRAIN, *OTHERS}


@pytest.mark.parametrize("name", FACTORIES)
def test_the_two_functions(name, base):
    method, params = build(name, base)
    assert list(inspect.signature(method.prepare).parameters) == ["params", "queries", "train"]
    assert list(inspect.signature(method.score).parameters) == ["state", "batch"]
    run = lambda params, q, train: method.score(method.prepare(params, q), train)
    scores = jax.jit(run)(params, base.queries, base.train)
    assert scores.shape == (3, 37)
    assert scores.dtype == jnp.float32
    assert bool(jnp.isfinite(scores).all())
    # the many: row b depends on example b alone
    state = method.prepare(params, base.queries)
    part = method.score(state, jax.tree.map(lambda a: a[5:9], base.train))
    assert relative(part, scores[:, 5:9]) < 1e-5
    # the few: row k depends on query k alone (the released recipe draws by position: keep it)
    first = jax.tree.map(lambda a: a[:1], base.queries)
    assert relative(jax.jit(run)(params, first, base.train), scores[:1]) < 1e-5
    # states are pytrees of arrays and vmap over stacked parameters
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    both = jax.vmap(run, in_axes=(0, None, None))(stacked, base.queries, base.train)
    assert relative(both, np.stack([scores, scores])) < 1e-5
    assert method.forward_passes is not None
    assert method.forward_passes(3) >= 1


@pytest.mark.parametrize("name", FACTORIES)
def test_attribute_runs_it(name, base):
    method, params = build(name, base)
    found = attribute(method, params, base.queries, base.train, batch_size=16, progress=False)
    state = method.prepare(params, base.queries)
    assert relative(found.scores, method.score(state, base.train)) < 1e-5
    assert all(figure.shape == (3,) for figure in found.diagnostics.values())
    assert method.name in str(found.plan)
    assert found.plan.rows_scored == 37
    best, at = found.proponents(4)[::-1]
    np.testing.assert_array_equal(best, -np.sort(-found.scores, axis=1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(found.scores, at, 1), best)
    worst, _ = found.opponents(4)[::-1]
    np.testing.assert_array_equal(worst, np.sort(found.scores, axis=1)[:, :4])


@pytest.mark.parametrize("name", WITH_TRAIN)
def test_attribute_hands_them_the_training_set(name, base):
    method = WITH_TRAIN[name](base.loss_fn)
    found = attribute(method, *base[1:], batch_size=16, progress=False)
    state = method.prepare(base.params, base.queries, Stream(as_source(base.train), 16))
    assert relative(found.scores, method.score(state, base.train)) < 1e-5
    assert all(figure.shape == (3,) for figure in found.diagnostics.values())
    with pytest.raises(InputError, match="train"):
        method.prepare(base.params, base.queries)


def test_scores_are_differentiable():
    """Everything composes with grad: here, a score in the query's input, on a smooth model."""
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=4), jnp.float32)
    make = lambda n: {"x": jnp.asarray(rng.normal(size=(n, 4)), jnp.float32)}
    queries, train = make(2), make(6)
    method = influence.grad_dot(lambda w, batch: jnp.tanh(batch["x"] @ w) ** 2)

    def total(x):
        return method.score(method.prepare(w, {"x": x}), train).sum()

    direction = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    slope = jnp.vdot(jax.grad(total)(queries["x"]), direction)
    ahead, behind = (total(queries["x"] + step * direction) for step in (1e-2, -1e-2))
    assert relative(slope, (ahead - behind) / 2e-2) < 1e-2
