"""Which scorer, and in what portions: chosen from what each is predicted to cost.

All scorers of displacements give the same numbers; which is cheapest depends on K, on how many
positions (tokens, pixels) share a kernel, on the model's size and on memory. The prediction comes
from the loss's own program, without compiling anything.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.tree_util import Partial

from jaxinf.errors import InputError
from jaxinf.influence.cost_model import CostModel
from jaxinf.influence.ghost.counts import Counts, Work, count
from jaxinf.influence.ghost.factors import factored_leaves
from jaxinf.influence.ghost.trace import NotTraceable, Trace, trace
from jaxinf.influence.scoring_plan import Candidate, ScoringPlan, general_plan, why
from jaxinf.typing import Batch, Params

SCORERS = ("jvp", "gradients", "ghost", "factored")
# Predictions nearer than this are a tie, and the simpler scorer (the first of these) is taken.
_TIE = 1.2
_SIMPLEST = ("jvp", "gradients", "factored", "ghost")
# Of a device's memory, the part that scratch may take where the caller does not say.
_SHARE = 0.25


@dataclass(frozen=True)
class Planner:
    """Chooses the scorer; hand one over in place of a scorer's name to set what it goes by.

    Attributes:
        memory_budget: bytes of scratch memory per device; None: a quarter of the device's, or of
            the host's over its devices.
        cost_model: rates; see `measure_rates`.
        candidates: scorers to choose from. One alone is an override.

    Raises:
        InputError: for a budget that is not positive, or unknown scorers.

    Example:
        >>> from jaxinf.influence import grad_dot
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> method = grad_dot(loss, scorer=Planner(memory_budget=1 << 20))
        >>> method.name
        'grad_dot(auto)'
    """

    memory_budget: float | None = None
    cost_model: CostModel = field(default_factory=CostModel)
    candidates: tuple[str, ...] = SCORERS

    def __post_init__(self):
        if self.memory_budget is not None and not self.memory_budget > 0:
            raise InputError(f"memory_budget must be positive, not {self.memory_budget}")
        unknown = [name for name in self.candidates if name not in SCORERS]
        if unknown or not self.candidates:
            raise InputError(f"candidates must be among {', '.join(SCORERS)}, not {unknown}")

    def budget(self) -> float:
        """Bytes of scratch memory per device."""
        return self.memory_budget or _SHARE * device_memory()

    def plan(
        self,
        loss: Partial,
        params: Params,
        example: Batch,
        num_directions: int,
        batch_rows: int,
        *,
        per_query: int | None = None,
        ranks: dict[int, int] | None = None,
        query_chunk: int | None = None,
        rows: int | None = None,
    ) -> ScoringPlan:
        """Choose for K directions and batches of so many examples per device.

        Args:
            loss: per-example loss, as from `scoring_loss`.
            params: arrays or shapes.
            example: one example, arrays or shapes.
            num_directions: K.
            batch_rows: examples in a batch, on each device.
            per_query: examples per query where directions are plain gradients, so that they may
                still be made as factors; None where they are given.
            ranks: leaf -> rank, of given directions that are factors.
            query_chunk: at most so many directions share a primal pass; None: any number.
            rows: at most so many examples pass through the model at once; None: any number.

        Returns:
            The plan.
        """
        budget = self.budget()
        portion = budget / 4
        try:
            taken = trace(loss, params, example)
        except NotTraceable:
            return general_plan(self.candidates, budget, portion)
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        counts = count(taken, size)
        setting = _Setting(counts, num_directions, batch_rows, budget, portion, query_chunk, rows)
        found: list[tuple[Candidate, tuple[int, ...]]] = []
        for name in self.candidates:
            leaves = _leaves(name, taken, num_directions, per_query, ranks)
            if leaves is None:
                continue
            of_leaf = (ranks if leaves else None) or _ranks(counts, leaves, per_query)
            work, shape = setting.of(name, of_leaf)
            if work is None:
                continue
            flops = work.flops
            candidate = Candidate(
                name,
                shape[0],
                shape[1],
                flops,
                flops / max(counts.forward.flops, 1.0),
                self.cost_model.seconds(work),
                shape[2],
                shape[2] <= budget,
                # what is held as factors is not made whole again
                not ranks or name in ("ghost", "factored"),
            )
            found.append((candidate, leaves))
        if not any(candidate.is_open for candidate, _ in found):
            raise InputError(
                f"none of {', '.join(self.candidates)} can score this loss: it has a while loop "
                "or a custom_vjp that the differentiation they need does not take"
            )
        found.sort(key=lambda pair: (not pair[0].is_open, not pair[0].fits, pair[0].seconds))
        if not found[0][0].fits:
            found.sort(key=lambda pair: (not pair[0].is_open, pair[0].temp_bytes))
        chosen, leaves = _simplest(found)
        return ScoringPlan(
            chosen,
            tuple(candidate for candidate, _ in found),
            why(chosen, [c for c, _ in found], num_directions),
            budget,
            portion,
            leaves,
        )


@dataclass(frozen=True)
class _Setting:
    counts: Counts
    directions: int
    batch_rows: int
    budget: float
    portion: float
    query_chunk: int | None
    rows: int | None

    def of(
        self, name: str, ranks: dict[int, int]
    ) -> tuple[Work | None, tuple[int | None, int | None, float]]:
        """Work per example; directions at once, examples at once, and bytes."""
        c, k = self.counts, self.directions
        if name in ("jvp", "factored"):
            if not c.forward_mode:
                return None, (None, None, 0.0)
            most = min(k, self.query_chunk or k)
            # directions are laid out anew for the products, and a loop holds a copy of all
            fixed = lambda chunk: 4.0 * c.parameters * (chunk + (k if chunk < k else 0))
            per_row = lambda chunk: c.live_bytes * (1.5 + 1.5 * chunk)
            chunk, rows, total = self._fit(most, per_row, fixed)
            work = c.forward * float(-(-k // chunk)) + c.tangent * float(k)
            if name == "factored":
                work = work + _saved(c, ranks) * float(k)
            return work, (chunk, rows, total)
        if not c.reverse_mode:
            return None, (None, None, 0.0)
        if name == "gradients":
            work = c.forward + c.backward + c.gradients
            work = work + Work(products=2.0 * k * c.parameters)
            each = 4.0 * c.parameters + 2.0 * c.saved_bytes
            most = min(self.rows or max(1, int((256 << 20) // (4 * c.parameters))), self.batch_rows)
            rows = int(max(1, min(most, self.budget // each)))
            return work, (None, rows, each * rows)
        contraction, made, laid_out = c.contraction(k, ranks, self.portion)
        work = c.forward + c.backward + contraction
        each = 2.0 * c.saved_bytes
        most = min(self.rows or self.batch_rows, self.batch_rows)
        rows = int(max(1, min(most, (self.budget - self.portion - laid_out) // max(each, 1.0))))
        made = max(made, min(self.portion, made * rows))
        total = each * rows + made + laid_out
        return work, (None, rows if rows < self.batch_rows else None, total)

    def _fit(self, most: int, per_row: Any, fixed: Any) -> tuple[int, int | None, float]:
        limit = min(self.rows or self.batch_rows, self.batch_rows)
        chunk, rows = most, limit
        while chunk > 1 and fixed(chunk) + per_row(chunk) * rows > self.budget:
            chunk = (chunk + 1) // 2
        while rows > 1 and fixed(chunk) + per_row(chunk) * rows > self.budget:
            rows = (rows + 1) // 2
        total = fixed(chunk) + per_row(chunk) * rows
        return chunk, rows if rows < self.batch_rows else None, total


def _simplest(found: list[tuple[Candidate, tuple[int, ...]]]) -> Any:
    best = found[0][0]
    near = [
        pair
        for pair in found
        if (pair[0].is_open, pair[0].fits) == (True, best.fits)
        and pair[0].seconds <= _TIE * best.seconds
    ]
    if not best.fits:
        return found[0]
    return min(near, key=lambda pair: _SIMPLEST.index(pair[0].scorer))


def _saved(counts: Counts, ranks: dict[int, int]) -> Work:
    """What factors add to the operations of one direction in forward mode, less than 0."""
    total = Work()
    for leaf, rank in ranks.items():
        sizes, is_conv = counts.kernel_work(leaf)
        whole = 2.0 * sizes.positions * sizes.kernel
        total = total + Work(**{"convolutions" if is_conv else "products": -whole})
        factors = 2.0 * sizes.batch * sizes.positions * rank * (sizes.entering + sizes.leaving)
        total = total + Work(products=factors)
    return total


def _leaves(
    name: str, taken: Trace, k: int, per_query: int | None, ranks: dict[int, int] | None
) -> tuple[int, ...] | None:
    """The leaves that are factors under a scorer; None where it cannot be."""
    if ranks:
        return tuple(ranks) if name in ("ghost", "factored") else ()
    if name == "ghost":
        return () if per_query is None else factored_leaves(taken, k, per_query)
    if name == "factored":
        found = () if per_query is None else factored_leaves(taken, k, per_query, forward=True)
        return found or None
    return ()


def _ranks(counts: Counts, leaves: tuple[int, ...], per_query: int | None) -> dict[int, int]:
    return {leaf: (per_query or 1) * counts.kernel_work(leaf)[0].positions for leaf in leaves}


def device_memory() -> float:
    """Bytes of the first device, or of the host divided over its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages / len(jax.local_devices())
