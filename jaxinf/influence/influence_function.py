"""Influence functions: what leaving a training example out would do, to first order.

The query's gradient is multiplied by the inverse curvature of the whole training objective, once;
every training example is then scored along the resulting displacement. With `scorer="jvp"` or
`"finite"` that side is forward-only: no gradient of a training example is ever taken.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.along import DisplacementScorer, along_displacement
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.convergence import warn_unconverged
from jaxinf.influence.curvature import Curvature, GaussNewton
from jaxinf.influence.directions import map_queries, query_gradient
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.inverse_hessian import (
    Solution,
    Solver,
    System,
    arnoldi,
    cg,
    ekfac,
    exact,
    kfac,
    lissa,
    woodbury,
)
from jaxinf.influence.inverse_hessian.system import DampingUnit, damping_name, mean_eigenvalue
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, as_measure, measure_name
from jaxinf.influence.passes import in_chunks, only_shapes, training_rows
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.vectors import row_norms, to_matrix, to_tree
from jaxinf.typing import Params, PerExampleLoss, PyTree

_SOLVERS = {
    "cg": cg,
    "lissa": lissa,
    "arnoldi": arnoldi,
    "kfac": kfac,
    "ekfac": ekfac,
    "exact": exact,
    "woodbury": woodbury,
}


def influence_function(
    loss_fn: PerExampleLoss,
    *,
    solver: str | Solver = "cg",
    damping: float = 0.0,
    damping_unit: DampingUnit = "absolute",
    curvature: Curvature = "hessian",
    measure: Measure = "loss",
    train_measure: Measure = "loss",
    penalty: Any = None,
    scorer: DisplacementScorer = "auto",
    query_chunk: int | None = 16,
    gradient_chunk: int | None = None,
) -> Attributor:
    """Change of the query's loss that leaving an example out makes: `⟨∇ℓ(z), C⁻¹ ∇ℓ(q)⟩ / N`.

    C is the mean curvature over the N training examples, plus the penalty's, plus the damping.

    Sign: positive = training on the example lowers the query's loss (a proponent). Unit: that of
    the query's measure; the score estimates `measure(q; trained without z) − measure(q)`.

    Cost: the solver's passes over the training set, once; then per training example as the
    scorer says.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        solver: `"cg"`, `"lissa"`, `"arnoldi"` or `"exact"`; `"kfac"`, `"ekfac"` or `"woodbury"`
            (for `curvature="fisher"`); or one of `jaxinf.influence.inverse_hessian`, with
            settings of its own.
        damping: added to the curvature. An L2 penalty `½ λ ‖θ‖²` beside the mean loss is the
            damping λ, exactly.
        damping_unit: `"mean_eigenvalue"` takes damping as a multiple of the curvature's trace
            over min(N, P). On networks, 1 predicts retraining better than little damping does.
        curvature: `"hessian"`; `"fisher"`, the mean outer product of gradients of the measure; or
            a `GaussNewton`.
        measure: what the query is asked about: `"loss"`; `"margin"`, for cross-entropies; or a
            function like a loss.
        train_measure: what of the training examples is followed. An example acts through its
            loss, whose gradient is the margin's with the weight 1 − p of TRAK; `"margin"` leaves
            that weight to `weight_by_doubt`.
        penalty: `params -> scalar` that the objective adds to the mean loss, or None.
        scorer: `"auto"` plans it; `"finite"`, `"jvp"`, `"gradients"`, `"ghost"` or a `Planner`:
            see `jaxinf.influence.derivatives`.
        query_chunk: how many queries are solved for, and scored, at once.
        gradient_chunk: examples whose gradients are held at once; None: what fits.

    Returns:
        An `Attributor` whose `prepare` needs the training set. Its diagnostics, float[K] each:
        `loss_before` (the measure), `gradient_norm`, `step_norm`, `damping` (absolute),
        `residual` (relative, of the linear system) and `iterations` (passes over the training
        set); with `scorer="finite"` also those of `forward_inf`.

    Raises:
        InputError: for settings that mean nothing, or no training set to pass over; in `prepare`,
            a curvature that is not positive definite.

    Warns:
        InfluenceWarning: the system is not solved to the solver's tolerance; says the residual.
            `attribute` warns. A `prepare` that the caller compiles with `jax.jit` can neither warn
            nor raise: `residual` and `iterations` in its state's diagnostics say it there.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = influence_function(loss, solver="exact", damping=0.5)
        >>> state = method.prepare(jnp.zeros(2), batch, Stream(as_source(batch), 2))
        >>> scores = method.score(state, batch)
        >>> [[round(abs(float(score)), 3) for score in row] for row in scores]
        [[0.5, 0.0], [0.0, 0.8]]

    Reference: Koh and Liang, Understanding Black-box Predictions via Influence Functions, ICML
    2017, section 2.1.
    """
    chosen = _as_solver(solver)
    _check_settings(damping, damping_unit, curvature, chosen)
    fine = scoring_loss(loss_fn, None, "highest")
    measured = scoring_loss(as_measure(fine, measure), None, "highest")
    scored = as_measure(fine if scorer == "finite" else scoring_loss(loss_fn), train_measure)
    held = None if penalty is None else Partial(penalty)
    scoring = along_displacement(scorer, query_chunk, gradient_chunk)
    name = _name(chosen, damping, damping_unit, curvature, (measure, train_measure), scoring.name)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        groups = as_groups(queries)
        of_one = lambda group: _gradient(measured, params, group)
        found, before = map_queries(of_one, params, groups)
        gradients = to_matrix(found)
        if only_shapes(train, params, queries):
            blank = jnp.full_like(gradients, jnp.nan)
            solution = Solution(blank, blank[:, 0], blank[:, 0])
            system, count = None, 1
        else:
            rows = training_rows(train, "influence_function")
            system = System(fine, measured, params, rows, curvature, held, 0.0)
            system = _damped(system, damping, damping_unit)
            solution = in_chunks(chosen.setup(system), query_chunk, gradients)
            if chosen.tolerance is not None:
                warn_unconverged(chosen.name, solution.residual, chosen.tolerance, chosen.advice)
            count = rows.count
        displacement = -solution.vectors / count
        diagnostics = {
            "loss_before": before,
            "gradient_norm": row_norms(gradients),
            "step_norm": row_norms(displacement),
            "damping": jnp.full_like(before, jnp.nan if system is None else system.damping),
            "residual": solution.residual,
            "iterations": solution.iterations,
        }
        return DirectionState(scored, params, to_tree(displacement, params), diagnostics)

    return Attributor(
        prepare, scoring.score, scoring.diagnose, loss_fn, scoring.cost, name, plan=scoring.plan
    )


@jax.jit
def _gradient(measured: Partial, params: Params, group: QueryGroups) -> tuple[Params, jax.Array]:
    found = query_gradient(measured, params, group)
    return found.displacement, found.loss_before


def _damped(system: System, damping: float, unit: DampingUnit) -> System:
    factor = mean_eigenvalue(system) if unit == "mean_eigenvalue" and damping else 1.0
    return replace(system, damping=damping * factor)


def _as_solver(solver: str | Solver) -> Solver:
    if isinstance(solver, Solver):
        return solver
    if solver not in _SOLVERS:
        raise InputError(
            f"solver must be one of {', '.join(_SOLVERS)}, or a Solver, not {solver!r}"
        )
    return _SOLVERS[solver]()


def _check_settings(
    damping: float, unit: DampingUnit, curvature: Curvature, solver: Solver
) -> None:
    if not damping >= 0:
        raise InputError(f"damping must be at least 0, not {damping}")
    if unit not in ("absolute", "mean_eigenvalue"):
        raise InputError(f"damping_unit must be 'absolute' or 'mean_eigenvalue', not {unit!r}")
    if not isinstance(curvature, GaussNewton) and curvature not in ("hessian", "fisher"):
        raise InputError(
            f"curvature must be 'hessian', 'fisher' or a GaussNewton, not {curvature!r}"
        )
    if solver.needs is not None and curvature != solver.needs:
        raise InputError(f"{solver.name} approximates curvature={solver.needs!r}: ask for that")


def _name(
    solver: Solver,
    damping: float,
    unit: DampingUnit,
    curvature: Curvature,
    measures: tuple[Measure, Measure],
    scorer: str,
) -> str:
    # everything that `attribute` cannot see in the scoring program: stores go by it
    matrix = "gauss_newton" if isinstance(curvature, GaussNewton) else curvature
    asked, followed = map(measure_name, measures)
    if followed != "loss":
        asked = f"{asked} of {followed}"
    how = f"{damping_name(damping, unit)}, {scorer}"
    return f"influence_function({solver.name}, {matrix}, {asked}, {how})"
