"""Bad input is refused before the work starts, in one line that says what and where."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf import InputError, attribute
from jaxinf.influence import (
    forward_inf,
    forward_inf_jvp,
    grad_dot,
    group_queries,
    normalise_by_gradient_norm,
    normalise_by_loss,
    released_forward_inf,
    representation_similarity,
)
from jaxinf.influence.checks import PrecisionWarning


def run(problem, method=None, **kwargs):
    method = method or grad_dot(problem.loss_fn)
    return attribute(method, *problem[1:], progress=False, **kwargs)


def refuses(match, problem, method=None, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
        run(problem, method, **kwargs)
    assert "\n" not in str(caught.value)


def poisoned(tree, key, row, value):
    leaf = np.array(tree[key])
    leaf[row] = value
    return tree | {key: leaf}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(mlp, value):
    bad = jax.tree.map(lambda a: a, mlp.params)
    kernel = np.array(jax.tree.leaves(bad)[-1])
    kernel.flat[0] = value
    leaves, structure = jax.tree.flatten(bad)
    params = jax.tree.unflatten(structure, [*leaves[:-1], kernel])
    refuses(r"params\['.*'\] holds 1 NaN or infinite of \d+ entries", mlp._replace(params=params))
    queries = poisoned(mlp.queries, "x", 2, value)
    refuses(r"queries\['x'\] holds 72 .* first in example 2", mlp._replace(queries=queries))
    train = poisoned(mlp.train, "x", 11, value)
    refuses(r"train\['x'\] holds 72 .* first in example 11", mlp._replace(train=train))


def test_not_finite_on_disk_is_found_as_it_is_read(mlp, tmp_path):
    np.save(tmp_path / "x.npy", poisoned(mlp.train, "x", 19, np.nan)["x"])
    train = mlp.train | {"x": np.load(tmp_path / "x.npy", mmap_mode="r")}
    refuses(r"train\['x'\] .* first in example 19", mlp._replace(train=train), batch_size=8)


def test_empty(mlp):
    none = lambda tree: jax.tree.map(lambda a: a[:0], tree)
    refuses("queries is empty", mlp._replace(queries=none(mlp.queries)))
    refuses("train is empty", mlp._replace(train=none(mlp.train)))
    refuses("train is empty", mlp._replace(train=[]))
    refuses("train is empty", mlp._replace(train=iter(())))
    refuses("params holds no arrays", mlp._replace(params={}))


def test_unequal_axes(mlp):
    ragged = lambda tree: tree | {"y": tree["y"][:-1]}
    message = r"unequal leading axes: .*\['x'\] has \d+, .*\['y'\] has \d+"
    refuses(f"queries has {message}", mlp._replace(queries=ragged(mlp.queries)))
    refuses(f"train has {message}", mlp._replace(train=ragged(mlp.train)))


def test_queries_unlike_the_training_examples(mlp):
    refuses(
        r"queries\['x'\] has examples of shape \(6, 5, 2\) but .* \(6, 6, 2\)",
        mlp._replace(queries=mlp.queries | {"x": mlp.queries["x"][:, :, :5]}),
    )
    refuses("must have one structure", mlp._replace(queries={"x": mlp.queries["x"]}))


def test_a_loss_that_is_not_per_example(mlp):
    mean = lambda params, batch: mlp.loss_fn(params, batch).mean()
    refuses(r"one loss per example, shape \(\d+,\), not \(\): drop the mean", mlp, grad_dot(mean))
    pairs = lambda params, batch: jnp.stack([mlp.loss_fn(params, batch)] * 2, axis=1)
    refuses(r"one loss per example, shape \(\d+,\), not \(\d+, 2\)", mlp, forward_inf(pairs))
    batchwise = lambda params, batch: (lambda losses: losses / jnp.sum(losses))(
        mlp.loss_fn(params, batch)
    )
    refuses("changes by .* when other rows of its batch do", mlp, forward_inf_jvp(batchwise))


@pytest.mark.parametrize("label", [4, -1])
def test_labels_out_of_range(mlp, label):
    hint = rf"is not finite \(\['y'\] = {label}: is it a class that the model has\?\)"
    refuses(f"train example 17 {hint}", mlp._replace(train=poisoned(mlp.train, "y", 17, label)))
    refuses(f"query 1 {hint}", mlp._replace(queries=poisoned(mlp.queries, "y", 1, label)))


def test_float64_while_x64_is_off(mlp):
    wide = lambda tree: tree | {"x": tree["x"].astype(np.float64)}
    message = r"\['x'\] is float64 but jax's x64 flag is off: cast it to float32"
    refuses(f"queries{message}", mlp._replace(queries=wide(mlp.queries)))
    refuses(f"train{message}", mlp._replace(train=wide(mlp.train)))


def test_not_numbers(mlp):
    words = np.array(["spam"] * 37)
    refuses(
        r"train\['x'\] has dtype <U4, which is not numeric",
        mlp._replace(train=mlp.train | {"x": words}),
    )
    refuses("train is a int", mlp._replace(train=3))


def test_integer_params(mlp):
    refuses("has no gradient", mlp._replace(params=mlp.params | {"step": jnp.zeros((), jnp.int32)}))


def test_settings(mlp):
    refuses("top_k is 38, but it must lie in 1 to 37", mlp, top_k=38)
    refuses("top_k is 0", mlp, top_k=0)
    refuses("batch_size must be at least 1", mlp, batch_size=0)
    refuses("via must be", mlp, parallel="threads")
    loss = mlp.loss_fn
    for match, make in (
        ("steps must be at least 1", lambda: forward_inf(loss, steps=0)),
        ("mode must be", lambda: forward_inf_jvp(loss, mode="sideways")),
        ("difference must be", lambda: forward_inf(loss, difference="squared")),
        ("scorer must be", lambda: grad_dot(loss, scorer="guess")),
        ("metric must be", lambda: representation_similarity(loss, metric="taxi")),
        ("floor must be positive", lambda: normalise_by_loss(grad_dot(loss), loss, floor=0)),
        ("needs a key", lambda: normalise_by_gradient_norm(grad_dot(loss), loss, num_probes=3)),
        ("one integer per query", lambda: group_queries(mlp.queries, np.zeros(2, int))),
    ):
        with pytest.raises(InputError, match=match):
            make()


def test_a_mesh_without_a_data_axis(mlp):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("model",))
    refuses("no 'data' axis", mlp, mesh=mesh)


def test_an_input_that_the_queries_do_not_have(mlp):
    stateful = lambda params, state, batch, *, train: (mlp.loss_fn(params, batch), state)
    method = released_forward_inf(stateful, key=jax.random.key(0), inputs="pixels")
    refuses("queries have no inputs 'pixels'", mlp._replace(params=(mlp.params, ())), method)


def test_a_step_below_the_resolution_is_warned_of(mlp):
    with pytest.warns(PrecisionWarning, match="below what the dtype resolves"):
        found = run(mlp, forward_inf(mlp.loss_fn, optimizer=optax.sgd(1e-7)))
    assert found.diagnostics["roundoff"].min() > 0.1
    fine = run(mlp, forward_inf(mlp.loss_fn, optimizer=optax.sgd(1e-2)))
    assert fine.diagnostics["roundoff"].max() < 0.1
    assert fine.diagnostics["loss_after"].max() < fine.diagnostics["loss_before"].max()


def test_the_diagnostics_see_a_step_that_is_too_large(mlp):
    small, large = (
        run(mlp, forward_inf(mlp.loss_fn, optimizer=optax.sgd(lr))).diagnostics["nonlinearity"]
        for lr in (1e-3, 1.0)
    )
    assert small.max() < 0.05
    assert large.min() > 0.1
