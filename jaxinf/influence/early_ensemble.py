"""Several models, each trained for a moment: influence that predicts retraining, cheaply.

What one network's gradients say of a training example is in part the accident of its start. The
mean over a few models takes that out, and models that have only begun to train cost little.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.along import DisplacementScorer
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.ensemble import check_stacked, over_checkpoints
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.inverse_hessian import Solver
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, doubt
from jaxinf.typing import Params, PerExampleLoss, PyTree


class DoubtState(NamedTuple):
    """The inner state, and the models that the weights are computed with (leading axis C)."""

    inner: PyTree
    loss_fn: Partial
    models: Params


def early_ensemble(
    loss_fn: PerExampleLoss,
    *,
    num_models: int,
    damping: float = 1.0,
    measure: Measure = "margin",
    doubt_power: float = 1.0,
    solver: str | Solver = "woodbury",
    scorer: DisplacementScorer = "jvp",
    query_chunk: int | None = 16,
) -> Attributor:
    """Influence functions with the Fisher matrix, averaged over briefly trained models.

    `mean_c ⟨∇m(z; θ_c), (F_c + damping)⁻¹ ∇m(q; θ_c)⟩ · mean_c (1 − p(z; θ_c)) / N`, m the margin
    and F_c its mean outer product of gradients. It is meant for networks; where there is one
    minimum, `influence_function` at it does better (docs/benchmarks.md, predicting retraining). An
    epoch, or as soon as most examples are right, is a time to stop.

    Sign: positive = training on the example lowers the query's measure (a proponent). Unit: of
    the measure, up to one factor.

    Cost: C times that of `influence_function`. Memory: C × K directions of the model's size; hand
    the queries over in parts where that is too much.

    Args:
        loss_fn: cross-entropy, `(params, batch) -> float[B]`, in evaluation mode.
        num_models: C; params have a leading axis C, as from `stack_checkpoints` or
            `retrain_on_subsets`.
        damping: in units of the mean eigenvalue of each F_c. Strong damping, near 1, serves best.
        measure: what the query is asked about: `"margin"`; or `"loss"`, or a function like a loss,
            which the training examples are then followed by too, without weights.
        doubt_power: of the weights 1 − p. Below 1, examples that early models have fitted count for
            more, as they will to a model of which they are half the evidence: 0.7 predicts
            retraining on halves better than 1 (docs/benchmarks.md).
        solver: `"woodbury"`; `"cg"` where there are too many training examples for it.
        scorer: `"jvp"` or `"finite"`, forward-only; or `"gradients"`.
        query_chunk: how many queries are solved for, and scored, at once.

    Returns:
        An `Attributor` whose `prepare` needs the training set, with the diagnostics of
        `influence_function` averaged over the models.

    Raises:
        InputError: as `influence_function` and `over_checkpoints`.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> loss = lambda w, batch: jax.nn.softplus(-batch["y"] * (batch["x"] @ w))
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = early_ensemble(loss, num_models=2)
        >>> models = jnp.array([[0.0, 0.0], [1.0, 0.0]])
        >>> state = method.prepare(models, batch, Stream(as_source(batch), 2))
        >>> [[round(float(score), 3) for score in row] for row in method.score(state, batch)]
        [[0.11, 0.0], [0.0, 0.308]]

    Reference: the average over models and the weights are TRAK's (Park et al., ICML 2023).
    """
    of_one = influence_function(
        loss_fn,
        solver=solver,
        damping=damping,
        damping_unit="mean_eigenvalue",
        curvature="fisher",
        measure=measure,
        train_measure=measure,
        scorer=scorer,
        query_chunk=query_chunk,
    )
    mean = over_checkpoints(of_one, [1 / num_models] * num_models)
    if measure == "margin":
        mean = weight_by_doubt(mean, loss_fn, num_models=num_models, power=doubt_power)
    weighting = "" if doubt_power == 1 else f", doubt^{doubt_power:g}"
    return mean._replace(name=f"early_ensemble({of_one.name}, {num_models} models{weighting})")


def weight_by_doubt(
    attributor: Attributor,
    loss_fn: PerExampleLoss,
    *,
    num_models: int | None = None,
    power: float = 1.0,
) -> Attributor:
    """Multiply each example's scores by 1 − p, the mean probability of all other classes.

    An example acts on a model through its loss, whose gradient is that of the margin times 1 − p.
    Averaging the two factors apart is steadier than averaging their product.

    Sign: as the inner attributor's.

    Cost: one forward pass more per example and model.

    Args:
        attributor: one that follows the training examples' margins.
        loss_fn: cross-entropy, `(params, batch) -> float[B]`.
        num_models: C, where params have a leading axis C; None where they are one model.
        power: of the weights.

    Returns:
        An `Attributor` with the inner one's diagnostics.

    Raises:
        InputError: for a power that is not positive; in `prepare`, params that are not stacked
            over C models.

    Example:
        >>> from jaxinf.influence import representation_similarity
        >>> same = representation_similarity(lambda w, batch: batch["x"], metric="dot")
        >>> loss = lambda w, batch: jax.nn.softplus(-w * batch["x"][:, 0])
        >>> method = weight_by_doubt(same, loss)
        >>> batch = {"x": jnp.array([[1.0], [2.0]])}
        >>> print(method.score(method.prepare(jnp.array(0.0), batch), batch))
        [[0.5 1. ]
         [1.  2. ]]
    """
    if not power > 0:
        raise InputError(f"the power of the weights 1 − p is {power}: a positive number")
    loss = scoring_loss(loss_fn)
    inner_diagnose, inner_cost = attributor.diagnose, attributor.forward_passes
    inner_plan = attributor.plan

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DoubtState:
        models = params
        if num_models is None:
            models = jax.tree.map(lambda p: jnp.asarray(p)[None], params)
        else:
            check_stacked(params, num_models)
        return DoubtState(attributor.prepare(params, queries, train), loss, models)

    def score(state: DoubtState, batch: PyTree) -> jax.Array:
        # one model after another: a convolution vmapped over weights is several times slower
        weights = jax.lax.map(lambda at: doubt(state.loss_fn(at, batch)), state.models)
        return attributor.score(state.inner, batch) * jnp.mean(weights, axis=0)[None] ** power

    def diagnose(state: DoubtState, batch: PyTree, key: jax.Array) -> Any:
        assert inner_diagnose is not None
        return inner_diagnose(state.inner, batch, key)

    return attributor._replace(
        prepare=prepare,
        score=score,
        diagnose=inner_diagnose and diagnose,
        forward_passes=inner_cost and (lambda k: inner_cost(k) + (num_models or 1)),
        plan=inner_plan and (lambda state, batch: inner_plan(state.inner, batch)),
        name=f"weight_by_doubt({attributor.name}{'' if power == 1 else f', power {power:g}'})",
    )
