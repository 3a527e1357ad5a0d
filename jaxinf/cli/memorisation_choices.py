"""What `jaxinf memorisation` offers by name; light, since every command's help imports it."""

from enum import StrEnum


class Estimate(StrEnum):
    """A cheap estimate of memorisation; its value is what the user types."""

    LEFT_OUT = "left-out"
    SEEN_LESS_LEFT_OUT = "seen-less-left-out"
    EARLY_LOSS = "early-loss"
    EARLY_GRADIENT = "early-gradient"
    EARLY_STEP = "early-step"
    EARLY_CURVATURE = "early-curvature"
