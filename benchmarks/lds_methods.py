"""How a method of `benchmarks.lds` scores one trained model; which ones: `lds_contenders`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.lds_sets import Problem, initialise, loss_at
from jaxinf import influence
from jaxinf.adapters import stateful_from_linen
from jaxinf.influence import Attributor

Maker = Callable[[Problem, Any], Attributor]


class Method(NamedTuple):
    """A method, and the models that it is run on.

    Attributes:
        name: in tables.
        family: methods of one family share a colour.
        make: `(problem, state) -> attributor` for a model with that state.
        epochs: that each model is trained for. Several are checkpoints of one run, whose scores
            are averaged too.
        counts: numbers of models that figures are given for; the largest is how many are scored.
        forward_only: no gradient of a training example is taken when scoring.
        stacked: the attributor takes all models at once.
        with_state: the attributor takes `(params, state)`.
        weighted: scores are multiplied by the models' mean 1 − p of the training example.
        power: of that weight.
        queries: only so many of the first queries are scored; None = all.
        decay: the models' learning rate falls to 0 within their runs.
        gram: damping, where influence comes from dot products of gradients alone (`lds_gram`).
        gram_batch: examples whose products with as many others are formed at once there.
    """

    name: str
    family: str
    make: Maker
    epochs: tuple[int, ...] = (20,)
    counts: tuple[int, ...] = (1,)
    forward_only: bool = True
    stacked: bool = False
    with_state: bool = False
    weighted: bool = False
    power: float = 1.0
    queries: int | None = None
    decay: bool = False
    gram: float | None = None
    gram_batch: int = 500


def influence_of(
    solver: Any,
    damping: float,
    *,
    unit: Any = "mean_eigenvalue",
    curvature: Any = "fisher",
    weighted: bool = False,
    scorer: Any = "jvp",
) -> Maker:
    """Influence functions of the problem's measure.

    Weighted ones leave the factor 1 − p of the training side to `lds_run.scored`, which averages
    it over the models by itself, as `jaxinf.influence.early_ensemble` does.
    """

    def make(problem: Problem, state: Any) -> Attributor:
        return influence.influence_function(
            loss_at(problem, state),
            solver=solver,
            damping=damping,
            damping_unit=unit,
            curvature=curvature,
            measure=problem.measure,
            train_measure=problem.measure if weighted else "loss",
            scorer=scorer,
        )

    return make


def of_loss(make: Callable[..., Attributor], **options: Any) -> Maker:
    """A method that needs the loss alone."""
    return lambda problem, state: make(loss_at(problem, state), **options)


def released(problem: Problem, state: Any) -> Attributor:
    """The released recipe, which steps in train mode."""
    params, _ = initialise(problem, jax.random.key(0))
    loss, _ = stateful_from_linen(problem.module, {"params": params, **state}, problem.loss)
    return influence.released_forward_inf(loss, key=jax.random.key(3))


def unrolled(steps: int, rate: float, scorer: Any, momentum: float = 0.9) -> Maker:
    """The mirror, by more training on the full objective with and without the query."""

    def make(problem: Problem, state: Any) -> Attributor:
        half = problem.penalty / 2
        penalty = lambda params: half * sum(jnp.sum(a**2) for a in jax.tree.leaves(params))
        return influence.mirrored_unroll(
            loss_at(problem, state),
            optimizer=optax.sgd(rate, momentum=momentum, nesterov=True),
            steps=steps,
            displacement="derivative",
            measure=problem.measure,
            penalty=penalty if half else None,
            scorer=scorer,
            query_chunk=25,
        )

    return make


def similarity(problem: Problem, state: Any) -> Attributor:
    """Cosine of the last hidden layer; of the pixels where there is none."""
    features: Any = lambda params, batch: problem.module.apply(
        {"params": params, **state}, batch["x"], method="features"
    )
    return influence.representation_similarity(features)


def trak_of(dimension: int, models: int | None, damping: float = 0.0) -> Maker:
    """TRAK with its own weights; `models` stacked, or one."""
    return lambda problem, state: influence.trak(
        loss_at(problem, state),
        projection_dim=dimension,
        key=jax.random.key(4),
        num_checkpoints=models,
        damping=damping,
        damping_unit="mean_eigenvalue",
        measure=problem.measure,
    )
