"""The interface that every influence method has: two pure functions, as optax has two."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Float

from jaxinf.engine import Stream
from jaxinf.influence.queries import QueryGroups
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.typing import Batch, Params, PerExampleLoss, PyTree


class PrepareFn(Protocol):
    """The few: turn K queries into a state, once."""

    def __call__(self, params: Params, queries: QueryGroups, train: Stream | None = None) -> PyTree:
        """State for `score`; methods that look at the training set pass over `train`."""
        ...


class ScoreFn(Protocol):
    """The many: score one batch of training examples."""

    def __call__(self, state: PyTree, batch: Batch) -> Float[jax.Array, "K B"]:
        """Influence of each example on each query; positive = a proponent."""
        ...


class DiagnoseFn(Protocol):
    """What the numbers can be trusted for, estimated on one batch of training examples."""

    def __call__(
        self, state: PyTree, batch: Batch, key: jax.Array
    ) -> Mapping[str, Float[jax.Array, " K"]]:
        """One figure per query under each name."""
        ...


class SelfScoreFn(Protocol):
    """What the examples of one batch do for themselves."""

    def __call__(self, state: PyTree, batch: Batch) -> Float[jax.Array, " B"]:
        """Influence of each example on itself."""
        ...


class Attributor(NamedTuple):
    """A method of attribution as pure functions; all of them jit, vmap and shard.

    Attributes:
        prepare: `(params, queries, train) -> state`, the query side.
        score: `(state, batch) -> float[K, B]`, the training side; row b depends on example b
            alone.
        diagnose: `(state, batch, key) -> {name: float[K]}`, or None.
        loss_fn: the per-example loss, for input checks; None where the method has none.
        forward_passes: K -> cost of `score` per training example, in forward passes, or None
            where it is not known.
        name: what to call it in plans, stores and reports.
        self_score: `(state, batch) -> float[B]`, each example's score on itself as a query, where
            the state of any query is enough for it; or None.
        plan: `(state, batch) -> ScoringPlan`, how such a batch is scored and why (only shapes
            matter), or None where there is no choice; it may return None.
        num_models: how many models `loss_fn` runs an example through; `forward_passes` counts
            passes through one.
    """

    prepare: PrepareFn
    score: ScoreFn
    diagnose: DiagnoseFn | None = None
    loss_fn: PerExampleLoss | Callable[..., Any] | None = None
    forward_passes: Callable[[int], float] | None = None
    name: str = "attributor"
    self_score: SelfScoreFn | None = None
    plan: Callable[[PyTree, Batch], ScoringPlan | None] | None = None
    num_models: int = 1
