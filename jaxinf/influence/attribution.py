"""What an attribution leaves behind."""

from dataclasses import dataclass

import jax
import numpy as np

from jaxinf.influence.scoring_plan import ScoringPlan


@dataclass(frozen=True)
class Plan:
    """What was chosen, what it was predicted to cost, and what it then took.

    Attributes:
        method: the attributor's name.
        num_queries: K.
        num_examples: N; None for an iterable, whose length is not known beforehand.
        batch_size: rows per step over all devices.
        num_devices: how many devices the rows were split over.
        parallel: `"shard_map"` or `"pmap"`.
        forward_passes: predicted cost per training example, in forward passes, or None.
        flops_per_example: the same in floating-point operations.
        temp_bytes: scratch memory per device that the compiler reserved.
        compile_seconds: time to compile the scoring step.
        run_seconds: time to score, compilation apart.
        rows_scored: examples scored now (those resumed from a store are not counted).
        scoring: what the planner chose from, where it chose; print it for what each scorer would
            cost. Its figures are for one device's share of a batch.
    """

    method: str
    num_queries: int
    num_examples: int | None
    batch_size: int
    num_devices: int
    parallel: str
    forward_passes: float | None
    flops_per_example: float | None
    temp_bytes: int | None
    compile_seconds: float
    run_seconds: float
    rows_scored: int
    scoring: ScoringPlan | None = None

    def __str__(self) -> str:
        cost = (
            "" if self.forward_passes is None else f", {self.forward_passes:g} forward passes each"
        )
        flops = "" if self.flops_per_example is None else f" ({self.flops_per_example:.3g} FLOPs)"
        scratch = "" if self.temp_bytes is None else f", {self.temp_bytes / 2**20:.0f} MiB scratch"
        count = "?" if self.num_examples is None else f"{self.num_examples:,}"
        return (
            f"{self.method}: {self.num_queries} queries × {count} examples{cost}{flops}; batches "
            f"of {self.batch_size} over {self.num_devices} device(s) by {self.parallel}{scratch}; "
            f"compiled in {self.compile_seconds:.1f} s, ran in {self.run_seconds:.1f} s"
            + ("" if self.scoring is None else f"; {self.scoring.choice}")
        )


@dataclass(frozen=True)
class Attribution:
    """Scores of N training examples for K queries; a pytree.

    Sign: positive = training on the example lowers the query's loss (a proponent), negative =
    raises it (an opponent). Methods that drop or redefine the sign say so.

    Attributes:
        scores: float[K, N], in the order of the training set; None when `top_k` was given.
        top_scores: float[K, k], the largest scores, largest first.
        top_indices: int32[K, k], their rows in the training set; −1 where fewer than k exist.
        bottom_scores: float[K, k], the smallest scores, smallest first.
        bottom_indices: int32[K, k], their rows.
        diagnostics: float[K] under each name; see the method's docstring.
        plan: what was run.
    """

    scores: np.ndarray | None
    top_scores: np.ndarray | None
    top_indices: np.ndarray | None
    bottom_scores: np.ndarray | None
    bottom_indices: np.ndarray | None
    diagnostics: dict[str, np.ndarray]
    plan: Plan

    def proponents(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k largest scores of each query: (indices int[K, k], scores float[K, k])."""
        return _best(self.scores, self.top_indices, self.top_scores, k, largest=True)

    def opponents(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k smallest scores of each query: (indices int[K, k], scores float[K, k])."""
        return _best(self.scores, self.bottom_indices, self.bottom_scores, k, largest=False)


def _best(
    scores: np.ndarray | None,
    indices: np.ndarray | None,
    values: np.ndarray | None,
    k: int,
    *,
    largest: bool,
) -> tuple[np.ndarray, np.ndarray]:
    if indices is not None and values is not None:
        return indices[:, :k], values[:, :k]
    found = np.asarray(scores)
    # a stable sort: ties go to the lower index
    order = np.argsort(-found if largest else found, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(found, order, axis=1)


jax.tree_util.register_dataclass(
    Attribution,
    data_fields=[
        "scores",
        "top_scores",
        "top_indices",
        "bottom_scores",
        "bottom_indices",
        "diagnostics",
    ],
    meta_fields=["plan"],
)
