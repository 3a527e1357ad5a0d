"""Ghost products, factored tangents and ghost norms against per-example gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ghost_cases import CASES, draw, mlp, odd_product
from jax.tree_util import Partial
from problems import make_problem, relative

from jaxinf import attribute
from jaxinf.adapters import from_equinox, from_nnx
from jaxinf.influence import forward_inf_jvp, grad_cos, grad_dot, tracin
from jaxinf.influence.ensemble import stack_checkpoints
from jaxinf.influence.ghost.capture import shapes_of
from jaxinf.influence.ghost.factors import mixed_gradient
from jaxinf.influence.ghost.forward import factored_derivatives
from jaxinf.influence.ghost.norms import ghost_norms
from jaxinf.influence.ghost.scores import ghost_products
from jaxinf.influence.ghost.trace import NotTraceable, trace
from jaxinf.influence.ghost.uses import Linear, Lookup, Other, find_uses, sole_uses
from jaxinf.influence.planner import Planner
from jaxinf.influence.queries import as_groups

FLOAT32, FLOAT64 = 1e-6, 1e-12
NUM_DIRECTIONS = 3


@pytest.fixture(autouse=True)
def _losses_as_users_write_them():
    with jax.numpy_rank_promotion("allow"):
        yield


def per_example(loss, params, batch):
    """Leaves [B, ...]: plain reverse mode of one example after another."""
    alone = lambda example: jax.tree.map(lambda a: a[None], example)
    return jax.lax.map(lambda e: jax.grad(lambda p: loss(p, alone(e))[0])(params), batch)


def flat(tree):
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([a.reshape(a.shape[0], -1) for a in leaves], axis=1)


def directions_of(params):
    keys = iter(range(100))
    make = lambda p: draw(NUM_DIRECTIONS, *p.shape, seed=10 + next(keys)).astype(p.dtype)
    return jax.tree.map(make, params)


def all_routes(case, tight):
    """Errors of products and norms; `tight` holds one example and next to no bytes at a time."""
    limits = {"rows": 2, "budget": 1.0} if tight else {}

    @jax.jit
    def run(params, batch, directions):
        loss = Partial(case.loss)
        gradients = flat(per_example(case.loss, params, batch))
        found = ghost_products(loss, params, directions, batch, **limits)
        norms = ghost_norms(loss, params, batch, **limits)
        expected = flat(directions) @ gradients.T, jnp.linalg.norm(gradients, axis=1)
        return (found, norms), expected

    (found, norms), expected = run(case.params, case.batch, directions_of(case.params))
    return relative(found, expected[0]), relative(norms, expected[1])


@pytest.mark.parametrize("name", CASES)
def test_ghost_products_are_those_of_the_gradients(x64, name):
    case = CASES[name]()
    for tight in (False, True):
        assert max(all_routes(case, tight)) < FLOAT64, tight


@pytest.mark.parametrize("name", ["mlp", "convolution", "attention, tied"])
def test_in_float32(name):
    assert max(all_routes(CASES[name](), tight=False)) < FLOAT32


def test_what_is_recognised():
    """Kernels are kernels whatever wrote them, and only what is none falls to the general rule."""
    kinds = {}
    for name in ("convolution", "attention, tied", "unrecognised"):
        case = CASES[name]()
        found = trace(Partial(case.loss), case.params, shapes_of(case.batch))
        uses = find_uses(found)
        names = sorted(case.params)
        of = lambda use: use.variables[0] if isinstance(use, Other) else use.variable
        kinds[name] = {
            kind: {
                names[leaf] for u in uses if isinstance(u, kind) for leaf in found.leaves_of[of(u)]
            }
            for kind in (Linear, Lookup, Other)
        }
    assert kinds["convolution"][Linear] == {"grouped", "strided", "dilated", "spread"}
    assert kinds["convolution"][Other] == {"scale", "bias"}
    tied = kinds["attention, tied"]
    assert tied[Linear] == {"query", "key", "value", "out", "tokens"}
    assert tied[Lookup] == {"tokens"}
    assert tied[Other] == {"places", "scale", "shift", "temperature"}
    assert not kinds["unrecognised"][Linear]


@pytest.mark.parametrize("name", ["mlp", "convolution", "attention, untied", "stacked layers"])
def test_factored_directions(x64, name):
    """Every kernel's query gradient as factors, scored in both modes, groups of two included."""
    case = CASES[name]()
    loss = Partial(case.loss)
    found = trace(loss, case.params, shapes_of(case.batch))
    alone = sole_uses(found, find_uses(found))
    leaves = tuple(sorted(leaf for leaf, use in alone.items() if isinstance(use, Linear)))
    assert leaves or name == "stacked layers"
    queries = jax.tree.map(lambda a: jnp.stack([a[:2], a[2:4]]), case.batch)
    groups = as_groups(case.batch)._replace(
        examples=queries, weights=jnp.array([[0.5, 0.5], [0.25, 0.75]])
    )

    @jax.jit
    def run(params, batch, groups):
        gradients = flat(per_example(case.loss, params, batch))
        one = lambda group: mixed_gradient(loss, params, group, leaves)
        mixed, _, norms = jax.lax.map(one, groups)
        asked = jnp.stack(
            [0.5 * gradients[0] + 0.5 * gradients[1], 0.25 * gradients[2] + 0.75 * gradients[3]]
        )
        found = (
            ghost_products(loss, params, mixed, batch),
            factored_derivatives(loss, params, mixed, batch),
            factored_derivatives(loss, params, mixed, batch, chunk=1, rows=2),
        )
        return found, norms, asked @ gradients.T, jnp.linalg.norm(asked, axis=1)

    found, norms, expected, expected_norms = run(case.params, case.batch, groups)
    assert max(relative(scores, expected) for scores in found) < FLOAT64
    assert relative(norms, expected_norms) < FLOAT64


def nnx_problem():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 3, (2, 2), strides=2, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.out = nnx.Linear(12, 2, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.out(x.reshape(x.shape[0], -1))

    square = lambda outputs, batch: jnp.square(outputs).sum(1)
    return *from_nnx(Net(nnx.Rngs(0)), square), {"x": np.asarray(draw(5, 4, 4, 2), np.float32)}


def equinox_problem():
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0))
    square = lambda outputs, batch: jnp.square(outputs).sum(1)
    return *from_equinox(module, square), {"x": np.asarray(draw(5, 4), np.float32)}


def haiku_problem():
    hk = pytest.importorskip("haiku")
    net = hk.without_apply_rng(
        hk.transform(
            lambda x: hk.Linear(2)(jnp.tanh(hk.LayerNorm(-1, True, True)(hk.Linear(5)(x))))
        )
    )
    x = np.asarray(draw(5, 4), np.float32)
    loss = lambda params, batch: jnp.square(net.apply(params, batch["x"])).sum(1)
    return loss, net.init(jax.random.key(0), x), {"x": x}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [nnx_problem, equinox_problem, haiku_problem])
def test_modules_of_other_libraries(make):
    loss, params, batch = make()
    queries = jax.tree.map(lambda a: a[:2], batch)

    @jax.jit
    def run(params):
        gradients = flat(per_example(loss, params, jax.tree.map(jnp.asarray, batch)))
        method = grad_dot(loss, scorer="ghost")
        return method.score(method.prepare(params, queries), batch), gradients[:2] @ gradients.T

    assert relative(*run(params)) < 2e-6


@pytest.mark.parametrize("scorer", ["ghost", "factored", "auto"])
def test_methods_that_score_by_it(scorer):
    """grad_cos, tracin and forward_inf_jvp, against per-example gradients."""
    problem = make_problem("mlp")
    loss = problem.loss_fn
    methods = {
        "cos": lambda s: grad_cos(loss, scorer=s),
        "jvp": lambda s: forward_inf_jvp(loss, scorer=s),
        "tracin": lambda s: tracin(loss, [0.1, 0.2], scorer=s),
    }
    for name, make in methods.items():
        params = problem.params
        if name == "tracin":
            params = stack_checkpoints([params, jax.tree.map(lambda p: p * 1.1, params)])
        scores = [
            jax.jit(lambda p, q, t, m=method: m.score(m.prepare(p, q), t))(
                params, problem.queries, problem.train
            )
            for method in (make(scorer), make("gradients"))
        ]
        assert relative(*scores) < 2e-6, name


def test_sharded_over_devices_and_vmapped_over_models():
    problem = make_problem("mlp")
    expected = attribute(
        grad_dot(problem.loss_fn, scorer="gradients"), *problem[1:], progress=False
    )
    method = grad_dot(problem.loss_fn, scorer="ghost")
    found = attribute(method, *problem[1:], batch_size=16, progress=False)
    assert found.plan.num_devices == 8
    assert relative(found.scores, expected.scores) < FLOAT32
    run = jax.jit(lambda p: method.score(method.prepare(p, problem.queries), problem.train))
    both = jax.vmap(run)(jax.tree.map(lambda p: jnp.stack([p, p]), problem.params))
    assert relative(both[1], expected.scores) < FLOAT32


def test_reverse_rules_of_the_user_are_kept():
    """A wrong rule gives its own gradient; taking the function apart would give the right one."""
    loss = Partial(lambda w, batch: odd_product(w, batch["x"]).sum(1))
    w, batch = draw(4, 3), {"x": draw(5, 4, seed=1)}
    found = ghost_products(loss, w, w[None], batch)
    inlined = jax.vmap(lambda x: jnp.vdot(jnp.outer(x, jnp.ones(3)), w))(batch["x"])
    assert relative(found[0], 3 * inlined) < FLOAT32


def test_a_loss_that_no_example_enters_is_left_to_the_general_path():
    loss = lambda w, batch: jnp.broadcast_to(jnp.sum(w**2), batch["x"].shape[:1])
    batch = {"x": draw(5, 4)}
    with pytest.raises(NotTraceable):
        ghost_products(Partial(loss), jnp.ones(2), jnp.ones((1, 2)), batch)
    for scorer in ("ghost", "auto", Planner(candidates=("jvp",))):
        method = grad_dot(loss, scorer=scorer)
        np.testing.assert_allclose(method.score(method.prepare(jnp.ones(2), batch), batch), 8.0)


def test_no_per_example_gradient_in_the_program():
    """At K = 2 and one position, nothing of B × (size of a kernel) is ever made."""
    case = mlp()
    wide = [{"w": draw(64, 48), "b": draw(48)}, {"w": draw(48, 3), "b": draw(3)}]
    batch = {"x": draw(40, 64)}
    run = lambda p, u, b: ghost_products(Partial(case.loss), p, u, b)
    program = jax.make_jaxpr(run)(wide, directions_of(wide), batch)
    sizes = [v.aval.size for eqn in program.jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) < 40 * 64 * 48
