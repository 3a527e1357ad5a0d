"""The Fisher matrix inverted in the space of the examples: the same as by its own dense inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative, to_float64

from jaxinf import InputError
from jaxinf.engine import Stream, as_source
from jaxinf.influence import InfluenceWarning, influence_function
from jaxinf.influence.inverse_hessian.system import System
from jaxinf.influence.inverse_hessian.woodbury import gram_matrix, woodbury
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.passes import training_rows

SMALL = {"num_train": 11, "num_queries": 2}


def rows_of(train, batch_size):
    return training_rows(Stream(as_source(train), batch_size), "a test")


# dense layers alone; convolutions beside a BatchNorm; tokens beside embeddings and LayerNorms
@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_the_gram_matrix_is_that_of_the_gradients(name):
    problem = make_problem(name, **SMALL)
    loss = scoring_loss(problem.loss_fn, None, "highest")
    system = System(loss, loss, problem.params, rows_of(problem.train, 4), "fisher", None, 1.0)
    gradients = jax.jit(
        jax.vmap(
            jax.grad(lambda p, row: loss(p, jax.tree.map(lambda a: a[None], row))[0]), (None, 0)
        )
    )(problem.params, problem.train)
    matrix = np.concatenate([np.asarray(g).reshape(11, -1) for g in jax.tree.leaves(gradients)], 1)
    assert relative(gram_matrix(system), matrix @ matrix.T) < 1e-5


@pytest.mark.parametrize("measure", ["loss", "margin"])
def test_it_is_the_exact_inverse(x64, measure):
    problem = make_problem("mlp", **SMALL)
    train, queries, params = (
        to_float64(part) for part in (problem.train, problem.queries, problem.params)
    )
    found = []
    for solver in ("woodbury", "exact"):
        method = influence_function(
            problem.loss_fn,
            solver=solver,
            curvature="fisher",
            measure=measure,
            damping=0.3,
            damping_unit="mean_eigenvalue",
        )
        state = method.prepare(params, queries, Stream(as_source(train), 4))
        found.append(jax.jit(method.score)(state, train))
        assert (state.diagnostics["residual"] < 1e-9).all()
    assert relative(*found) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, "woodbury needs damping above 0"),
        ({"solver": woodbury(max_examples=5)}, "11 training examples and the woodbury .* takes 5"),
        ({"curvature": "hessian"}, "woodbury approximates|woodbury .*fisher"),
        ({"penalty": lambda params: jnp.zeros(())}, "woodbury takes no penalty"),
    ],
)
def test_bad_input(options, message):
    problem = make_problem("mlp", **SMALL)
    given = {"solver": "woodbury", "curvature": "fisher", "damping": 0.1} | options
    with pytest.raises(InputError, match=message):
        influence_function(problem.loss_fn, **given).prepare(
            problem.params, problem.queries, Stream(as_source(problem.train), 4)
        )


def test_damping_that_float32_cannot_resolve():
    """Twice the same examples: without damping the Gram matrix is singular."""
    problem = make_problem("mlp", **SMALL)
    twice = jax.tree.map(lambda a: np.concatenate([a, a]), problem.train)
    method = influence_function(
        problem.loss_fn, solver="woodbury", curvature="fisher", damping=1e-12
    )
    with pytest.warns(InfluenceWarning, match="woodbury is not converged"):
        method.prepare(problem.params, problem.queries, Stream(as_source(twice), 4))
