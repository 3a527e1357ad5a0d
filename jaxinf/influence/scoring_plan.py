"""What the planner leaves behind: the scorer that is run, and what each would have cost."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Candidate:
    """One scorer as it would be run, and what that is predicted to cost.

    Attributes:
        scorer: its name.
        query_chunk: directions that share a primal pass (for those of forward mode).
        rows: examples that pass through the model at once; None: the batch.
        flops: per training example, for all queries together.
        forward_passes: the same in forward passes of the example.
        seconds: per training example.
        temp_bytes: scratch memory for a batch.
        fits: whether that is within the budget.
        is_open: whether it takes the directions as they are held; factors, once made, are for
            those that use them.
    """

    scorer: str
    query_chunk: int | None
    rows: int | None
    flops: float
    forward_passes: float
    seconds: float
    temp_bytes: float
    fits: bool
    is_open: bool = True


@dataclass(frozen=True)
class ScoringPlan:
    """What was chosen, beside what else was open.

    Attributes:
        chosen: the candidate that is run.
        candidates: all of them, cheapest first.
        reason: one line.
        memory_budget: bytes of scratch memory that were allowed.
        contraction_budget: bytes that a ghost contraction may make at once.
        factored: leaves of params whose directions are factors.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    reason: str
    memory_budget: float
    contraction_budget: float
    factored: tuple[int, ...] = ()

    def times(self, models: int) -> "ScoringPlan":
        """The same for so many models, one after another."""
        scaled = tuple(
            replace(
                c,
                flops=c.flops * models,
                forward_passes=c.forward_passes * models,
                seconds=c.seconds * models,
            )
            for c in self.candidates
        )
        chosen = scaled[self.candidates.index(self.chosen)]
        return replace(self, chosen=chosen, candidates=scaled)

    @property
    def choice(self) -> str:
        """The choice in one line."""
        c = self.chosen
        return (
            f"scorer {c.scorer}: {self.reason} (predicted {c.flops:.3g} FLOPs and "
            f"{c.seconds * 1e6:.3g} µs per example, {c.temp_bytes / 2**20:.1f} MiB scratch)"
        )

    def __str__(self) -> str:
        lines = [self.choice]
        for c in self.candidates:
            mark = "*" if c is self.chosen else " "
            lines.append(
                f"{mark} {c.scorer:<9} {c.forward_passes:8.2f} forward passes  {c.flops:9.3g} FLOPs"
                f"  {c.seconds * 1e6:9.3g} µs per example  {c.temp_bytes / 2**20:8.1f} MiB scratch"
                + ("" if c.fits else "  (over the budget)")
                + ("" if c.is_open else "  (with whole directions)")
            )
        return "\n".join(lines)


def why(chosen: Candidate, found: list[Candidate], num_directions: int) -> str:
    """Why a candidate was taken, in one line."""
    if not chosen.fits:
        return "none fits the memory budget; the one that takes least"
    others = [c for c in found if c is not chosen]
    if not others:
        return "the only one that is open"
    best = min((c for c in others if c.fits and c.is_open), key=lambda c: c.seconds, default=None)
    over = [c.scorer for c in others if not c.fits]
    note = f"; {', '.join(over)} over the memory budget" if over else ""
    if best is None:
        return f"the only one that is open{note}"
    if best.seconds < chosen.seconds:
        return f"simpler than {best.scorer}, which is not predicted to be clearly faster{note}"
    return (
        f"predicted {best.seconds / max(chosen.seconds, 1e-30):.2g} times as fast as "
        f"{best.scorer} for K = {num_directions}{note}"
    )


def general_plan(candidates: tuple[str, ...], budget: float, portion: float) -> ScoringPlan:
    """The plan for a loss that cannot be taken apart: per-example gradients, where allowed."""
    unknown = float("nan")
    scorer = "gradients" if "gradients" in candidates else candidates[0]
    only = Candidate(scorer, None, None, unknown, unknown, unknown, unknown, True)
    return ScoringPlan(only, (only,), "the loss cannot be taken apart", budget, portion)
