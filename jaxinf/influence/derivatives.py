"""The one place where the slopes of many examples' losses along K directions are taken.

Every method whose query side ends in directions scores through here, by the same choice of
scorers. All of them give the same numbers, to round-off.

| scorer | forward passes per example | when |
|---|---|---|
| `jvp` | (1 + 2K) | few directions; flat memory; any loss that forward mode takes |
| `factored` | about (1 + K) | as `jvp`, where kernels' directions are of low rank |
| `gradients` | about 3, and P·K operations | any loss; holds per-example gradients |
| `ghost` | about 2, and the contractions | many directions; holds activations |
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.errors import InputError
from jaxinf.influence.ghost.capture import in_blocks, shapes_of
from jaxinf.influence.ghost.forward import factored_derivatives
from jaxinf.influence.ghost.norms import ghost_norms
from jaxinf.influence.ghost.scores import CONTRACTION_BYTES, MixedDirections, ghost_products
from jaxinf.influence.ghost.trace import NotTraceable
from jaxinf.influence.passes import check_chunk
from jaxinf.influence.planner import SCORERS, Planner
from jaxinf.influence.queries import QueryGroups
from jaxinf.influence.scorers import (
    contracted_gradients,
    directional_derivatives,
    gradient_norms,
)
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.typing import Batch, Params

Scorer: TypeAlias = Literal["auto", "jvp", "gradients", "ghost", "factored"] | Planner
"""How slopes along directions are taken; `"auto"` is `Planner()`."""

# Choosing how to hold the queries' directions must not depend on the batch, which only comes
# with the training examples.
_NOMINAL_ROWS = 64


@dataclass(frozen=True)
class Derivatives:
    """Slopes of per-example losses along directions, by one scorer or the planner's choice.

    Attributes:
        scorer: see `Scorer`.
        query_chunk: at most so many directions share a primal pass; None: all, or as planned.
        gradient_chunk: at most so many examples' gradients (for `"ghost"`, activations) are held
            at once; None: what fits.

    Raises:
        InputError: for an unknown scorer, or a chunk that is not positive.
    """

    scorer: Scorer
    query_chunk: int | None = None
    gradient_chunk: int | None = None

    def __post_init__(self):
        if not isinstance(self.scorer, Planner) and self.scorer not in ("auto", *SCORERS):
            raise InputError(
                f"scorer must be 'auto', {', '.join(map(repr, SCORERS))} or a Planner, not "
                f"{self.scorer!r}"
            )
        check_chunk(self.query_chunk, "query_chunk")
        check_chunk(self.gradient_chunk, "gradient_chunk")

    @property
    def name(self) -> str:
        """For the names of methods."""
        return self.scorer if isinstance(self.scorer, str) else "auto"

    @property
    def planner(self) -> Planner | None:
        """What chooses; None where the scorer was named."""
        if isinstance(self.scorer, Planner):
            return self.scorer
        return Planner() if self.scorer == "auto" else None

    def __call__(
        self, loss: Partial, params: Params, directions: Params | MixedDirections, batch: Batch
    ) -> Float[jax.Array, "K B"]:
        """Derivative of each example's loss along each direction."""
        plan = self.plan(loss, params, directions, batch)
        if plan is None:
            return _run(
                self.name,
                loss,
                params,
                directions,
                batch,
                self.query_chunk,
                self.gradient_chunk,
                CONTRACTION_BYTES,
            )
        chosen, portion = plan.chosen, plan.contraction_budget
        return _run(
            chosen.scorer,
            loss,
            params,
            directions,
            batch,
            chosen.query_chunk,
            chosen.rows,
            portion,
        )

    def plan(
        self, loss: Partial, params: Params, directions: Params | MixedDirections, batch: Batch
    ) -> ScoringPlan | None:
        """What is run on such a batch and why; None where the scorer was named."""
        if self.planner is None:
            return None
        ranks = {}
        if isinstance(directions, MixedDirections):
            found = enumerate(directions.factors)
            ranks = {leaf: f.entering.shape[2] for leaf, f in found if f is not None}
        return self.planner.plan(
            loss,
            params,
            shapes_of(batch),
            jax.tree.leaves(directions)[0].shape[0],
            jax.tree.leaves(batch)[0].shape[0],
            ranks=ranks,
            query_chunk=self.query_chunk,
            rows=self.gradient_chunk,
        )

    def score(self, state: Any, batch: Batch) -> Float[jax.Array, "K B"]:
        """The same over a `DirectionState`."""
        return self(state.loss_fn, state.params, state.directions, batch)

    def plan_score(self, state: Any, batch: Batch) -> ScoringPlan | None:
        """What `score` runs and why."""
        return self.plan(state.loss_fn, state.params, state.directions, batch)

    def factored(self, loss: Partial, params: Params, groups: QueryGroups) -> tuple[int, ...]:
        """The leaves of params whose plain gradients are better kept as factors."""
        planner = self.planner
        if planner is None:
            if self.name not in ("ghost", "factored"):
                return ()
            planner = Planner(candidates=(self.name,))
        count, per_query = groups.weights.shape
        example = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape[2:], a.dtype), groups.examples
        )
        try:
            plan = planner.plan(
                loss, params, example, count, _NOMINAL_ROWS, per_query=per_query,
                query_chunk=self.query_chunk,
            )  # fmt: skip
        except InputError:
            if self.planner is None:
                return ()  # nothing to factor
            raise
        return plan.factored

    def cost(self, num_directions: int) -> float:
        """Forward passes per example, roughly: the plan says it for the loss at hand."""
        k = num_directions
        by_jvp = -(-k // (self.query_chunk or k)) + 2.0 * k
        costs = {"jvp": by_jvp, "factored": by_jvp, "gradients": 3.0, "ghost": 3.0}
        return costs.get(self.name, min(by_jvp, 3.0))

    def norms(self, loss: Partial, params: Params, batch: Batch) -> Float[jax.Array, " B"]:
        """Norm of each example's gradient."""
        return norms_of_gradients(loss, params, batch, self.gradient_chunk)


def norms_of_gradients(
    loss: Partial, params: Params, batch: Batch, chunk: int | None = None
) -> Float[jax.Array, " B"]:
    """Norm of each example's gradient, exactly; most gradients are never formed."""
    try:
        return ghost_norms(loss, params, batch, chunk)
    except NotTraceable:
        return gradient_norms(loss, params, batch, chunk)


def _run(
    scorer: str,
    loss: Partial,
    params: Params,
    directions: Any,
    batch: Batch,
    query_chunk: int | None,
    rows: int | None,
    portion: float,
) -> jax.Array:
    mixed = isinstance(directions, MixedDirections)
    if scorer == "factored" and mixed:
        return factored_derivatives(loss, params, directions, batch, query_chunk, rows)
    if scorer in ("jvp", "factored"):
        of = lambda block: directional_derivatives(loss, params, directions, block, query_chunk)
        return in_blocks(lambda block: of(block).T, batch, rows).T
    if scorer == "ghost":
        try:
            return ghost_products(loss, params, directions, batch, rows, portion)
        except NotTraceable:
            pass
    return contracted_gradients(loss, params, directions, batch, rows)[0]
