"""Forward-INF: update the model on the query, then one forward pass per training example.

The Mirrored Influence Hypothesis (Ko et al., CVPR 2024, arXiv 2402.08922): how a training
example changes the query's loss is mirrored by how training on the query changes that
example's loss. `forward_inf` takes the finite step; `forward_inf_jvp` is its exact first-order
limit, needs no step small enough and large enough, and so has no round-off to mind.

On models that are not convex one step on the query alone is a weak estimate of leave-one-out
influence; what it finds well and what it does not is measured in the benchmarks.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxinf.errors import InputError, check_differentiable
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.derivatives import Derivatives, Scorer
from jaxinf.influence.diagnostics import step_diagnostics, unresolved_share
from jaxinf.influence.directions import Mode, add, global_norm, map_queries, optimizer_steps
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.queries import QueryGroups, as_groups
from jaxinf.influence.scorers import finite_changes
from jaxinf.typing import Params, PerExampleLoss, PyTree

Difference = Literal["signed", "absolute"]


class StepState(NamedTuple):
    """The model and where each query moves it (together, leading axis K + 1), and diagnostics."""

    loss_fn: Partial
    models: Params
    diagnostics: dict[str, jax.Array]


class DirectionState(NamedTuple):
    """The model and one displacement per query (leading axis K)."""

    loss_fn: Partial
    params: Params
    directions: Params
    diagnostics: dict[str, jax.Array]


def forward_inf(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 1,
    mode: Mode = "descent",
    difference: Difference = "signed",
    query_chunk: int | None = None,
    compute_dtype: Any = None,
    matmul_precision: str | None = "highest",
) -> Attributor:
    """Influence by a finite step on the query: `loss(z; θ) − loss(z; θ′)` for each example z.

    Sign: positive = training on the example lowers the query's loss (a proponent), in either
    mode; with `difference="absolute"` scores are ≥ 0 and the sign is lost.

    Cost: (1 + K) forward passes per training example. Memory: K + 1 copies of the parameters.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        optimizer: any optax optimiser, started afresh for each query; default
            `optax.sgd(1e-2)`.
        steps: how many steps are taken on each query.
        mode: `"descent"` trains on the query, `"ascent"` unlearns it.
        difference: `"signed"`, or `"absolute"` as in the paper's released code.
        query_chunk: how many moved models are vmapped at a time when scoring. One by default: a
            convolution vmapped over weights is a grouped convolution, several times slower.
        compute_dtype: dtype of parameters and inputs within the loss, such as `jnp.bfloat16`;
            losses and differences stay float32 or wider.
        matmul_precision: as in `jax.default_matmul_precision`. The default, `"highest"`, keeps
            TPUs and GPUs from rounding a small step away.

    Returns:
        An `Attributor`. Its diagnostics, float[K] each: `loss_before`, `loss_after`,
        `step_norm`, `unresolved_step` (share of the step lost to rounding), `nonlinearity` and
        `roundoff` (see `jaxinf.influence.diagnostics.step_diagnostics`).

    Raises:
        InputError: for settings that mean nothing; while tracing, for a loss that is not one
            number per example.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = forward_inf(loss, optimizer=optax.sgd(0.5))
        >>> state = method.prepare(jnp.zeros(2), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[ 1. -3.]
         [-3. -0.]]

    Reference: Ko et al., The Mirrored Influence Hypothesis, CVPR 2024.
    """
    optimizer = optax.sgd(1e-2) if optimizer is None else optimizer
    _check_settings(steps, mode)
    if difference not in ("signed", "absolute"):
        raise InputError(f"difference must be 'signed' or 'absolute', not {difference!r}")
    loss = scoring_loss(loss_fn, compute_dtype, matmul_precision)

    @jax.jit
    def step(loss: Partial, params: Params, group: QueryGroups) -> tuple[Params, dict[str, Any]]:
        found = optimizer_steps(loss, params, group, optimizer, steps, mode)
        return add(params, found.displacement), {
            "loss_before": found.loss_before,
            "loss_after": found.loss_after,
            "step_norm": global_norm(found.displacement),
            "unresolved_step": unresolved_share(params, found.displacement, compute_dtype),
        }

    def prepare(params: Params, queries: PyTree, train: Any = None) -> StepState:
        check_differentiable(params)
        of_one = lambda group: step(loss, params, group)
        moved, diagnostics = map_queries(of_one, params, as_groups(queries))
        models = jax.tree.map(lambda p, m: jnp.concatenate([p[None], m]), params, moved)
        return StepState(loss, models, diagnostics)

    def score(state: StepState, batch: PyTree) -> jax.Array:
        change = finite_changes(state.loss_fn, state.models, batch, query_chunk)
        if difference == "absolute":
            return jnp.abs(change)
        return -change if mode == "descent" else change

    def diagnose(state: StepState, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        return state.diagnostics | step_diagnostics(
            state.loss_fn, state.models, batch, key, compute_dtype
        )

    return Attributor(
        prepare, score, diagnose, loss_fn, lambda k: 1.0 + k, f"forward_inf({difference}, {mode})"
    )


def forward_inf_jvp(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 1,
    mode: Mode = "descent",
    scorer: Scorer = "auto",
    query_chunk: int | None = 4,
    gradient_chunk: int | None = None,
    compute_dtype: Any = None,
    matmul_precision: str | None = None,
) -> Attributor:
    """The exact first-order limit of `forward_inf`: the derivative along the query's step.

    Sign: positive = training on the example lowers the query's loss (a proponent). The scale is
    that of `forward_inf` with the same optimiser: the two agree as the step shrinks.

    Cost: (1 + 2K) forward passes per training example by forward mode, about 3 and the
    contractions by the others; see `jaxinf.influence.derivatives`.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        optimizer: any optax optimiser; default `optax.sgd(1e-2)`.
        steps: how many steps make up the direction.
        mode: `"descent"` or `"ascent"`; they agree for one step of SGD.
        scorer: `"auto"` plans it; `"jvp"` is forward-only.
        query_chunk: how many directions share one primal pass, at most; more costs memory. None:
            all, or as planned.
        gradient_chunk: examples whose gradients are held at once; None: what fits.
        compute_dtype: as in `forward_inf`.
        matmul_precision: as in `jax.default_matmul_precision`; the limit needs no more than the
            default.

    Returns:
        An `Attributor`, with diagnostics `loss_before`, `loss_after` and `step_norm`.

    Example:
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = forward_inf_jvp(loss, optimizer=optax.sgd(0.5))
        >>> state = method.prepare(jnp.zeros(2), batch)
        >>> print(jnp.round(method.score(state, batch), 2))
        [[ 2. -2.]
         [-2.  4.]]
    """
    optimizer = optax.sgd(1e-2) if optimizer is None else optimizer
    _check_settings(steps, mode)
    slopes = Derivatives(scorer, query_chunk, gradient_chunk)
    loss = scoring_loss(loss_fn, compute_dtype, matmul_precision)

    @jax.jit
    def step(loss: Partial, params: Params, group: QueryGroups) -> tuple[Params, dict[str, Any]]:
        found = optimizer_steps(loss, params, group, optimizer, steps, mode)
        return found.displacement, {
            "loss_before": found.loss_before,
            "loss_after": found.loss_after,
            "step_norm": global_norm(found.displacement),
        }

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        of_one = lambda group: step(loss, params, group)
        directions, diagnostics = map_queries(of_one, params, as_groups(queries))
        return DirectionState(loss, params, directions, diagnostics)

    def score(state: DirectionState, batch: PyTree) -> jax.Array:
        change = slopes.score(state, batch)
        return -change if mode == "descent" else change

    return Attributor(
        prepare,
        score,
        lambda state, batch, key: state.diagnostics,
        loss_fn,
        slopes.cost,
        f"forward_inf_jvp({mode})",
        plan=slopes.plan_score,
    )


def _check_settings(steps: int, mode: str) -> None:
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    if mode not in ("descent", "ascent"):
        raise InputError(f"mode must be 'descent' or 'ascent', not {mode!r}")
