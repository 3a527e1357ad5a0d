"""The mirror, unrolled: what the query would do to the model if it were trained on.

The model goes on training on the full objective, once as it is and once with the query added as
one more example, from the same start and over the same batches. The difference between the two is
the query's displacement, and on a convex problem it tends to that of retraining with the query
(mirrored leave-one-out) as the steps go on. One step on the query alone, as in `forward_inf`,
does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxinf.errors import check_differentiable
from jaxinf.influence.along import DisplacementScorer, along_displacement
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.directions import global_norm
from jaxinf.influence.forward_inf import DirectionState
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.measures import Measure, measure_name
from jaxinf.influence.queries import QueryGroups, as_groups, group_loss
from jaxinf.influence.unrolling import Displacement, make_unrolling
from jaxinf.typing import Params, PerExampleLoss, PyTree


def mirrored_unroll(
    loss_fn: PerExampleLoss,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    full_batch: bool = True,
    displacement: Displacement = "finite",
    measure: Measure = "loss",
    penalty: Any = None,
    scorer: DisplacementScorer = "auto",
    query_chunk: int | None = 16,
    gradient_chunk: int | None = None,
) -> Attributor:
    """`ℓ(z; θ_D) − ℓ(z; θ_{D+q})` after k steps on the training set without and with the query.

    The objective is the mean loss over the N training examples plus the penalty; the query enters
    with weight 1/N, at every step.

    Sign: positive = training on the example lowers the query's loss (a proponent), by the mirror:
    training on the query lowers the example's. Unit: of the loss, as `influence_function`.

    Cost: K + 1 trainings of k steps, together, once; then per training example as the scorer
    says: with `"jvp"` or `"finite"` the training side is forward-only.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        optimizer: any optax optimiser, started afresh.
        steps: k.
        full_batch: each step takes the whole training set. False: one block of `batch_size` rows
            in the order of the set, block after block.
        displacement: `"finite"`, the difference of the two trainings; `"derivative"`, its limit
            for a small weight of the query, carried forward through the steps. The derivative
            takes no difference of nearly equal parameters, and so keeps its digits in float32;
            the optimiser must be differentiable (for Adam, set its `eps_root`).
        measure: what the query adds: `"loss"`, `"margin"` or a function like a loss.
        penalty: `params -> scalar` that the objective adds to the mean loss, or None.
        scorer: `"auto"` plans it; `"finite"`, `"jvp"`, `"gradients"`, `"ghost"` or a `Planner`:
            see `jaxinf.influence.derivatives`.
        query_chunk: how many queries are trained on, and scored, at once.
        gradient_chunk: examples whose gradients are held at once; None: what fits.

    Returns:
        An `Attributor` whose `prepare` needs the training set. Its diagnostics, float[K] each:
        `loss_before` and `loss_after` (the query's measure after the steps without and with it)
        and `step_norm`; with `scorer="finite"` also those of `forward_inf`.

    Raises:
        InputError: for settings that mean nothing, or no training set to pass over; in `prepare`,
            steps that diverge.

    Example:
        >>> from jaxinf.engine import Stream, as_source
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = mirrored_unroll(loss, optimizer=optax.sgd(0.1), steps=1)
        >>> state = method.prepare(jnp.zeros(2), batch, Stream(as_source(batch), 2))
        >>> scores = method.score(state, batch)
        >>> [[round(abs(float(score)), 4) for score in row] for row in scores]
        [[0.0475, 0.0], [0.0, 0.16]]

    Reference: the hypothesis of Ko et al., The Mirrored Influence Hypothesis, CVPR 2024.
    """
    unrolling = make_unrolling(
        loss_fn,
        optimizer=optimizer,
        steps=steps,
        full_batch=full_batch,
        displacement=displacement,
        measure=measure,
        penalty=penalty,
        query_chunk=query_chunk,
    )
    scored = unrolling.loss if scorer == "finite" else scoring_loss(loss_fn)
    scoring = along_displacement(scorer, query_chunk, gradient_chunk)

    def prepare(params: Params, queries: PyTree, train: Any = None) -> DirectionState:
        check_differentiable(params)
        groups = as_groups(queries)
        base, moved_by = unrolling(params, groups, train, "mirrored_unroll")
        return _state(scored, unrolling.measured, base, moved_by, groups)

    batches = "full" if full_batch else "blocks"
    asked = measure_name(measure)
    return Attributor(
        prepare,
        scoring.score,
        scoring.diagnose,
        loss_fn,
        scoring.cost,
        f"mirrored_unroll({steps} steps, {batches}, {displacement}, {asked}, {scoring.name})",
        plan=scoring.plan,
    )


@jax.jit
def _losses(measured: Partial, params: Params, groups: QueryGroups) -> jax.Array:
    return jax.lax.map(lambda group: group_loss(measured, params, group), groups)


@jax.jit
def _state(
    scored: Partial, measured: Partial, base: Params, moved_by: Params, groups: QueryGroups
) -> DirectionState:
    def after(pair: tuple[Params, QueryGroups]) -> jax.Array:
        moved = jax.tree.map(jnp.add, base, pair[0])
        return group_loss(measured, moved, pair[1])

    return DirectionState(
        scored,
        base,
        moved_by,
        {
            "loss_before": _losses(measured, base, groups),
            "loss_after": jax.lax.map(after, (moved_by, groups)),
            "step_norm": jax.vmap(global_norm)(moved_by),
        },
    )
