"""The released recipe against a PyTorch loop of the same steps, and its traps one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative

from jaxinf import attribute
from jaxinf.adapters import stateful_from_linen
from jaxinf.influence import released_forward_inf
from jaxinf.influence.released import on_sphere
from jaxinf.models import cross_entropy

WIDTH, SIZE, CLASSES, LR = 5, 6, 3, 5e-3


class Network(nn.Module):
    """Convolution, BatchNorm, ReLU, mean, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(WIDTH, (3, 3), padding=1, use_bias=False, name="conv")(x)
        x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="bn")(x)
        return nn.Dense(CLASSES, name="fc")(nn.relu(x).mean((1, 2)))


@pytest.fixture
def setting():
    rng = np.random.default_rng(0)
    make = lambda n: {
        "x": rng.normal(size=(n, SIZE, SIZE, 2)).astype(np.float32),
        "y": rng.integers(0, CLASSES, n).astype(np.int32),
    }
    queries, train = make(3), make(20)
    module = Network()
    variables = module.init(jax.random.key(0), queries["x"])
    stats = {"bn": {"mean": rng.normal(size=WIDTH) * 0.2, "var": rng.uniform(0.5, 2, WIDTH)}}
    variables = variables | {
        "batch_stats": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), stats)
    }
    return module, variables, queries, train


def test_scores_are_those_of_the_pytorch_loop(setting):
    torch = pytest.importorskip("torch")
    module, variables, queries, train = setting
    params, stats = variables["params"], variables["batch_stats"]["bn"]
    tensor = lambda a: torch.tensor(np.asarray(a))

    def build():
        net = torch.nn.Sequential(
            torch.nn.Conv2d(2, WIDTH, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(WIDTH),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(WIDTH, CLASSES),
        )
        net[0].weight.data = tensor(np.transpose(params["conv"]["kernel"], (3, 2, 0, 1)))
        net[1].weight.data, net[1].bias.data = (
            tensor(params["bn"]["scale"]),
            tensor(params["bn"]["bias"]),
        )
        net[1].running_mean, net[1].running_var = tensor(stats["mean"]), tensor(stats["var"])
        net[5].weight.data = tensor(np.transpose(params["fc"]["kernel"]))
        net[5].bias.data = tensor(params["fc"]["bias"])
        return net

    images = lambda x: tensor(np.transpose(x, (0, 3, 1, 2)))
    losses = lambda net, rows: torch.nn.functional.cross_entropy(
        net(images(rows["x"])), tensor(rows["y"]).long(), reduction="none"
    )
    expected = []
    for k in range(3):
        query = {key: np.concatenate([a[k : k + 1]] * 2) for key, a in queries.items()}
        net = build().train()
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        (-losses(net, query).mean()).backward()
        optimizer.step()
        # PyTorch keeps the unbiased variance as its running one, flax the biased
        count, old = 2 * SIZE * SIZE, tensor(stats["var"])
        net[1].running_var = 0.9 * old + (net[1].running_var - 0.9 * old) * (count - 1) / count
        with torch.no_grad():
            change = losses(net.eval(), train) - losses(build().eval(), train)
        expected.append(np.abs(change.numpy()))
    loss, params_and_state = stateful_from_linen(module, variables, cross_entropy)
    method = released_forward_inf(loss, key=jax.random.key(0), learning_rate=LR)
    found = attribute(method, params_and_state, queries, train, progress=False)
    assert relative(found.scores, np.stack(expected)) < 1e-4
    np.testing.assert_array_equal(found.diagnostics["fallback_trials"], 0)


def test_trap_the_scores_do_not_vanish_with_the_step(setting):
    """The statistics of BatchNorm move whatever the learning rate."""
    module, variables, queries, train = setting
    loss, both = stateful_from_linen(module, variables, cross_entropy)
    method = released_forward_inf(loss, key=jax.random.key(0), learning_rate=0.0)
    assert attribute(method, both, queries, train, progress=False).scores.min() > 1e-5


def test_trap_adam_forgets_the_size_of_the_gradient(setting):
    """lr · sign(g): the step is as long for a gradient a hundred times as large."""
    module, variables, queries, train = setting
    louder = lambda logits, batch: 100 * cross_entropy(logits, batch)
    norms = []
    for loss in (cross_entropy, louder):
        stateful, both = stateful_from_linen(module, variables, loss)
        method = released_forward_inf(stateful, key=jax.random.key(0))
        found = attribute(method, both, queries, train, progress=False)
        norms.append(found.diagnostics["step_norm"])
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-3)


def test_trap_a_small_loss_replaces_the_query():
    """By hand: the first query's loss is small, so a point on a sphere takes its place."""

    def loss(w, state, batch, *, train):
        return jnp.sum((batch["x"] * w[None]) ** 2, axis=1) * 1e-3, state

    w = jnp.array([1.0, 2.0])
    queries = {"x": jnp.array([[0.1, 0.1], [3.0, 4.0]])}
    key = jax.random.key(5)
    method = released_forward_inf(loss, key=key)
    state = method.prepare((w, ()), queries)
    trials = np.asarray(state.diagnostics["fallback_trials"])
    assert trials[0] >= 1
    assert trials[1] == 0
    # walk the same spheres outwards until half the loss is at least 1e-2
    for trial in range(100):
        draw = jax.random.fold_in(jax.random.fold_in(key, 0), trial)
        point = on_sphere(draw, queries["x"][:1], 3.0 * 1.1**trial)
        np.testing.assert_allclose(
            jnp.linalg.norm(point - queries["x"][:1]), 3.0 * 1.1**trial, rtol=1e-5
        )
        value = loss(w, (), {"x": point}, train=True)[0][0]
        if value / 2 >= 1e-2:
            break
    assert trials[0] == trial + 1
    np.testing.assert_allclose(state.diagnostics["fallback_radius"][0], 3.0 * 1.1**trial, rtol=1e-5)
    np.testing.assert_allclose(state.diagnostics["loss_before"][0], value, rtol=1e-4)


def test_inputs_by_position():
    loss = lambda w, state, batch, *, train: (jnp.sum((batch[0] * w[None]) ** 2, axis=1), state)
    method = released_forward_inf(loss, key=jax.random.key(0), inputs=0)
    rows = (jnp.ones((2, 2)), jnp.zeros(2))
    both = (jnp.array([1.0, 2.0]), ())
    assert method.score(method.prepare(both, rows), rows).shape == (2, 2)
