"""The methods of `benchmarks.lds`: how each scores one trained model, and on how many it is run.

Every setting here was fixed on the development problems (see `benchmarks.lds_sets`) or is the
method's own default; none was chosen on the figures that are published.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.lds_sets import Problem, initialise, loss_at
from jaxinf import influence
from jaxinf.adapters import stateful_from_linen
from jaxinf.influence import Attributor
from jaxinf.influence.inverse_hessian import arnoldi, cg

Maker = Callable[[Problem, Any], Attributor]
# epochs of the briefly trained models
EARLY = {"mnist_lr": 1, "mnist_mlp": 2, "cifar2_resnet9": 4, "shakespeare": 4}


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


def methods(problem: Problem) -> list[Method]:
    """All methods for a problem, what matters most first."""
    early = min(EARLY[problem.name], problem.epochs)
    full, most = (problem.epochs,), problem.epochs // early
    most = 4 if problem.name == "mnist_lr" else most  # a convex problem has one minimum
    counts = tuple(c for c in (1, 2, 4, 6, 8, 10, 16, 20) if c <= most)
    quarters = tuple(dict.fromkeys(max(1, problem.epochs * i // 4) for i in (1, 2, 3, 4)))
    loss_jvp, dots = of_loss(influence.forward_inf_jvp), of_loss(influence.grad_dot)
    # whole gradients of all examples do not fit at the full size of the other two
    solver = "woodbury" if problem.name.startswith("mnist") or problem.size.reduced else "cg"
    strong = influence_of(solver, 1.0)
    margins = problem.measure == "margin"
    wide = min(512, problem.size.train // 2)  # wider than the examples, TRAK has no inverse
    early_of = influence_of(solver, 1.0, weighted=margins)
    # four epochs, and the power of 1 - p, were chosen on mnist_mlp's development part alone
    four, decayed = min(4, problem.epochs), tuple(c for c in range(1, 6) if 4 * c <= problem.epochs)
    thrice = tuple(c for c in (1, 2, 3, 6) if 3 * c <= problem.epochs)
    tuned: dict[str, Any] = {
        "weighted": margins, "power": 0.7, "decay": True, "epochs": (four,),
        "counts": decayed or (1,),
    }  # fmt: skip
    # losses are followed without weights
    name = "early ensemble, decayed" + ", power 0.7" * margins
    found = [
        Method(name, "early", early_of, **tuned),
        Method("early ensemble", "early", early_of, (early,), counts, weighted=margins),
        Method("influence function, λ = 1", "influence", strong, full, (1, 4)),
        Method("Forward-INF, JVP (= grad-dot)", "forward-inf", loss_jvp, full, (1, 4)),
        Method("Forward-INF, JVP, early", "forward-inf", loss_jvp, (early,), counts[:3]),
        Method("Forward-INF, one clean step", "forward-inf", of_loss(influence.forward_inf), full),
        Method("features' cosine", "baseline", similarity, full),
        Method("grad-cos", "gradients", of_loss(influence.grad_cos), full, forward_only=False),
        Method("TracIn, 4 checkpoints", "gradients", dots, quarters),
    ]  # fmt: skip
    if margins:
        found.append(
            Method("early ensemble, decayed", "early", early_of, (3,), thrice, weighted=True,
                   decay=True)
        )  # fmt: skip
    if margins:  # its fallback moves the query's input, which text has not
        found.append(
            Method("Forward-INF, released", "forward-inf", released, full, with_state=True)
        )
    if problem.name == "mnist_lr":
        by_hessian: dict[str, Any] = {"unit": "absolute", "curvature": "hessian"}
        found += [
            Method(f"influence function, {name}, {scorer}", "influence",
                   influence_of(solver, problem.penalty, scorer=scorer, **by_hessian), full)
            for name, solver, scorer in (
                ("CG", cg(tolerance=1e-3), "jvp"),
                ("CG", cg(tolerance=1e-3), "finite"),
                ("Arnoldi", arnoldi(rank=200), "jvp"),
            )
        ] + [
            Method(f"mirrored unroll, {scorer}", "unroll", unrolled(300, 0.2, scorer, 0.97),
                   full)
            for scorer in ("jvp", "finite")
        ]  # fmt: skip
    else:
        found += [
            Method("influence function, EK-FAC, λ = 1", "influence", influence_of("ekfac", 1.0),
                   full, queries=50),
            Method("mirrored unroll, 20 steps", "unroll", unrolled(20, 0.02, "jvp"), full,
                   queries=25),
        ]  # fmt: skip
    if problem.name != "mnist_lr":
        found.append(
            Method(f"{name}, Gram", "early", early_of, forward_only=False, gram=1.0, **tuned)
        )
    found += [
        Method("TRAK", "trak", trak_of(wide, models), full, (models,), forward_only=False,
               stacked=True)
        for models in (1, 5)
        if problem.name != "cifar2_resnet9"  # its models differ in their BatchNorm statistics
    ]  # fmt: skip
    return found
