"""Which methods `benchmarks.lds` runs on which problem, and with which settings.

Every setting here was fixed on the development problems (see `benchmarks.lds_sets` and
`benchmarks.lds_settings`) or is the method's own default; none was chosen on the figures that are
published.
"""

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import RESULTS, read_results
from benchmarks.lds_further import further_methods
from benchmarks.lds_methods import (
    Method,
    influence_of,
    of_loss,
    released,
    similarity,
    trak_of,
    unrolled,
)
from benchmarks.lds_sets import Problem
from jaxinf import influence
from jaxinf.influence.inverse_hessian import arnoldi, cg

SETTINGS = RESULTS / "lds_settings.json"
# epochs of the briefly trained models
EARLY = {"mnist_lr": 1, "mnist_mlp": 2, "cifar2_resnet9": 4, "shakespeare": 4}


class Decayed(NamedTuple):
    """Of the early ensemble whose learning rates fall to zero: `benchmarks.lds_settings`.

    Attributes:
        epochs: of each model; as many models as one full run pays for, five at most.
        damping: in mean eigenvalues.
        power: of the weights 1 − p.
    """

    epochs: int = 4
    damping: float = 1.0
    power: float = 0.7


def chosen_settings(name: str, path: Path) -> Decayed:
    """Of a set: what its development part found best within the price of one full run.

    The two small sets have those that were chosen on the development part of mnist_mlp, by hand
    at first; the sweep that `lds_settings` makes of it comes to the same ones.
    """
    if name.startswith("mnist"):
        return Decayed()
    rows = [row for each in read_results(path) if each["set"] == name for row in each["rows"]]
    rows = [row for row in rows if row["decay"] and row["training"] <= 1]
    if not rows:
        return Decayed()
    best = max(rows, key=lambda row: row["lds"])
    return Decayed(best["epochs"], best["damping"], best["power"])


def methods(problem: Problem, settings: Path = SETTINGS) -> list[Method]:
    """All methods for a problem, what matters most first."""
    chosen = chosen_settings(problem.name, settings)
    mnist, reduced = problem.name.startswith("mnist"), problem.size.reduced
    listed = of_all_queries if mnist or reduced else of_some_queries
    found = listed(problem, chosen)
    wide = min(512, problem.size.train // 2)  # wider than the examples, TRAK has no inverse
    # the scorer of several models takes one state: those with BatchNorm have one each; and
    # without damping its Gram matrix is singular there at the reduced size
    several, damping = ((1,), 0.01) if problem.name == "cifar2_resnet9" else ((1, 5), 0.0)
    return found + [
        Method("TRAK", "trak", trak_of(wide, models, damping), (problem.epochs,), (models,),
               forward_only=False, stacked=True)
        for models in several
    ] + (further_methods(problem) if mnist or reduced else [])  # fmt: skip


def decayed(problem: Problem, chosen: Decayed, **options: Any) -> Method:
    """The early ensemble as chosen on a development part, or its Gram form."""
    margins = problem.measure == "margin"
    epochs = min(chosen.epochs, problem.epochs)
    counts = tuple(c for c in range(1, 6) if epochs * c <= problem.epochs)
    # losses are followed without weights
    name = "early ensemble, decayed" + f", power {chosen.power:g}" * margins
    by_gram = options.pop("by_gram", False)
    if by_gram:
        options |= {"gram": chosen.damping, "forward_only": False}
    make = influence_of("woodbury", chosen.damping, weighted=margins)
    return Method(
        name + ", Gram" * by_gram, "early", make, (epochs,), counts, weighted=margins,
        power=chosen.power, decay=True, **options,
    )  # fmt: skip


def of_all_queries(problem: Problem, chosen: Decayed) -> list[Method]:
    """Where a forward-mode pass per query and example is cheap."""
    early = min(EARLY[problem.name], problem.epochs)
    # with BatchNorm's statistics held still, the derivative of larger steps is not finite
    rate = 0.002 if problem.name == "cifar2_resnet9" else 0.02
    full, most = (problem.epochs,), problem.epochs // early
    most = 4 if problem.name == "mnist_lr" else most  # a convex problem has one minimum
    counts = tuple(c for c in (1, 2, 4, 6, 8, 10, 16, 20) if c <= most)
    thrice = tuple(c for c in (1, 2, 3, 6) if 3 * c <= problem.epochs)
    # by forward mode; the planner takes gradients for so many queries on the larger networks
    loss_jvp = of_loss(influence.forward_inf_jvp, scorer="jvp")
    dots = of_loss(influence.grad_dot)
    strong, margins = influence_of("woodbury", 1.0), problem.measure == "margin"
    early_of = influence_of("woodbury", 1.0, weighted=margins)
    found = [
        decayed(problem, chosen),
        Method("early ensemble", "early", early_of, (early,), counts, weighted=margins),
        Method("influence function, λ = 1", "influence", strong, full, (1, 4)),
        Method("Forward-INF, JVP (= grad-dot)", "forward-inf", loss_jvp, full, (1, 4)),
        Method("Forward-INF, JVP, early", "forward-inf", loss_jvp, (early,), counts[:3]),
        Method("Forward-INF, one clean step", "forward-inf", of_loss(influence.forward_inf), full),
        Method("features' cosine", "baseline", similarity, full),
        Method("grad-cos", "gradients", of_loss(influence.grad_cos), full, forward_only=False),
        Method("TracIn, 4 checkpoints", "gradients", dots, quarters(problem), forward_only=False),
    ]  # fmt: skip
    if problem.size.reduced:
        found.append(Method("grad-dot", "gradients", dots, full, (1, 4), forward_only=False))
    if margins:
        found += [
            Method("early ensemble, decayed", "early", early_of, (3,), thrice, weighted=True,
                   decay=True),
            # its fallback moves the query's input, which text has not
            Method("Forward-INF, released", "forward-inf", released, full, with_state=True),
        ]  # fmt: skip
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
        return found
    return [
        *found,
        Method("influence function, EK-FAC, λ = 1", "influence", influence_of("ekfac", 1.0),
               full, queries=50 if problem.size.reduced else None),
        Method("mirrored unroll, 20 steps", "unroll", unrolled(20, rate, "jvp"), full,
               queries=10 if problem.size.reduced else 25),
        decayed(problem, chosen, by_gram=True),
    ]  # fmt: skip


def of_some_queries(problem: Problem, chosen: Decayed) -> list[Method]:
    """For large networks: forward-mode passes for the first queries stand for all of them."""
    full, margins = (problem.epochs,), problem.measure == "margin"
    products: dict[str, Any] = {"forward_only": False, "gram_batch": 250}
    strong = influence_of("woodbury", 1.0)
    found = [
        decayed(problem, chosen, by_gram=True, gram_batch=250),
        Method("influence function, λ = 1, Gram", "influence", strong, full, (1, 4), gram=1.0,
               **products),
        Method("features' cosine", "baseline", similarity, full),
        Method("grad-dot", "gradients", of_loss(influence.grad_dot, scorer="gradients"), full,
               (1, 4), forward_only=False),
        Method("grad-cos", "gradients", of_loss(influence.grad_cos), full, forward_only=False),
        Method("Forward-INF, JVP", "forward-inf", of_loss(influence.forward_inf_jvp, scorer="jvp"),
               full, queries=50),
        Method("Forward-INF, one clean step", "forward-inf", of_loss(influence.forward_inf), full,
               queries=50),
        decayed(problem, chosen, queries=25),
        Method("influence function, EK-FAC, λ = 1", "influence", influence_of("ekfac", 1.0),
               full, queries=50),
        Method("TracIn, 4 checkpoints", "gradients",
               of_loss(influence.grad_dot, scorer="gradients"), quarters(problem),
               forward_only=False),
        Method("mirrored unroll, 20 steps", "unroll", unrolled(20, 0.02, "jvp"), full, queries=10),
    ]  # fmt: skip
    if margins:
        found.insert(
            7, Method("Forward-INF, released", "forward-inf", released, full, with_state=True,
                      queries=50)
        )  # fmt: skip
    return found


def quarters(problem: Problem) -> tuple[int, ...]:
    """Epochs of four checkpoints of a full run."""
    return tuple(dict.fromkeys(max(1, problem.epochs * i // 4) for i in (1, 2, 3, 4)))
