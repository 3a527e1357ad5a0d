"""The rest of the family in `benchmarks.lds`: one row each, with the settings they come with."""

from typing import Any

import jax

from benchmarks.lds_methods import Method, influence_of, of_loss
from benchmarks.lds_sets import Problem
from jaxinf import influence
from jaxinf.influence import Attributor
from jaxinf.influence.inverse_hessian import lissa


def further_methods(problem: Problem) -> list[Method]:
    """Solvers, compressions, baselines and normalised scores that no other row has.

    Content hashes are left out: no example of these sets is there twice. So is the dense inverse:
    of the logistic regression's 7,850 x 7,850 Hessian float32 does not resolve the smallest values.
    """
    full = (problem.epochs,)
    convex, text = problem.name == "mnist_lr", problem.name == "shakespeare"
    backward: dict[str, Any] = {"forward_only": False}
    # a forward-mode pass per query is dear on the larger networks
    asked = 50 if problem.size.reduced else None
    found = [
        Method("LoGra, rank 16", "trak", lora, full, **backward),
        Method("representer points", "baseline", representer, full, **backward),
        Method("grad-dot / loss", "gradients", over_loss, full, **backward),
        Method("grad-dot / gradient norm", "gradients", over_norm, full, **backward),
        Method("TRAK / self-influence", "trak", over_self, full, **backward),
        Method("influence function, K-FAC, λ = 1", "influence", influence_of("kfac", 1.0), full,
               queries=asked),
        Method("influence function, LiSSA, λ = 1", "influence",
               influence_of(lissa(depth=100), 1.0), full, queries=asked),
    ]  # fmt: skip
    if convex:
        hessian: dict[str, Any] = {"unit": "absolute", "curvature": "hessian", "scorer": "jvp"}
        found += [
            Method("influence function, LiSSA, jvp", "influence",
                   influence_of(lissa(depth=2000), problem.penalty, **hessian), full),
            Method("influence function, EK-FAC, λ = 1", "influence", influence_of("ekfac", 1.0),
                   full),
        ]  # fmt: skip
    if text:
        found.append(Method("BM25 on characters", "baseline", by_words, full))
    else:
        found.append(Method("10 nearest neighbours", "baseline", neighbours, full))
    return found


def lora(problem: Problem, state: Any) -> Attributor:
    """Low-rank gradients."""
    make = of_loss(influence.logra, rank=16, key=jax.random.key(5), measure=problem.measure)
    return make(problem, state)


def _features(problem: Problem, state: Any) -> Any:
    return lambda params, batch: problem.module.apply(
        {"params": params, **state}, batch["x"], method="features"
    )


def representer(problem: Problem, state: Any) -> Attributor:
    """The last layer's own terms."""
    features = _features(problem, state)

    def model(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        outputs: Any = problem.module.apply({"params": params, **state}, batch["x"])
        return features(params, batch), outputs

    return influence.representer_points(model, lambda outputs, batch: problem.loss(outputs, batch))


def neighbours(problem: Problem, state: Any) -> Attributor:
    """Shapley values of nearest neighbours in the last hidden layer."""
    classes = int(problem.train["y"].max()) + 1
    features = _features(problem, state)
    return influence.knn_attribution(features, num_classes=classes, num_neighbours=10)


def by_words(problem: Problem, state: Any) -> Attributor:
    """Without a model."""
    return influence.bm25(lambda batch: batch["x"])


def over_loss(problem: Problem, state: Any) -> Attributor:
    """Divided by each training example's loss."""
    dots = of_loss(influence.grad_dot)(problem, state)
    assert dots.loss_fn is not None
    return influence.normalise_by_loss(dots, dots.loss_fn)


def over_norm(problem: Problem, state: Any) -> Attributor:
    """Divided by the norm of each training example's gradient."""
    dots = of_loss(influence.grad_dot)(problem, state)
    assert dots.loss_fn is not None
    return influence.normalise_by_gradient_norm(dots, dots.loss_fn)


def over_self(problem: Problem, state: Any) -> Attributor:
    """TRAK's score divided by the root of what each training example does for itself."""
    make = of_loss(
        influence.trak, projection_dim=min(512, problem.size.train // 2), key=jax.random.key(4),
        measure=problem.measure, damping=0.01, damping_unit="mean_eigenvalue",
        with_self_score=True,
    )  # fmt: skip
    return influence.normalise_by_self_influence(make(problem, state))
