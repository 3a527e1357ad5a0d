"""What the methods of `benchmarks.mislabelled` are called, and of what kind each is."""

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]

NAMES = {
    "trusted_jvp": "minus influence, JVP",
    "trusted_jvp_cos": "minus influence over the gradient's norm, JVPs",
    "trusted_finite": "minus influence, finite steps",
    "trusted_finite_loss": "loss after finite steps on the trusted set",
    "trusted_preconditioned": "minus influence, preconditioned JVP",
    "trusted_early_ensemble": "minus influence, early ensemble",
    "trusted_consensus": "consensus with the trusted set",
    "trusted_grad_dot": "grad-dot",
    "trusted_grad_cos": "grad-cos",
    "trusted_tracin": "TracIn over early models",
    "loss": "training loss",
    "gradient_norm": "gradient norm",
    "self_jvp": "gradient norm by JVPs",
    "self_preconditioned": "self-influence, preconditioned (LoGra)",
    "out_of_fold_loss": "out-of-fold loss",
    "out_of_fold_margin": "out-of-fold margin",
    "confident_learning": "confident learning's margin",
    "early_loss": "loss of early models",
    "early_margin": "margin of early models",
    "consensus": "consensus",
    "knn_shapley": "KNN-Shapley",
    "lava": "LAVA",
    "nearest_validation": "nearest validation example",
    "trusted_logistic": "loss of a logistic regression on the trusted set",
    "out_of_fold_logistic": "out-of-fold loss, logistic regression",
    "knn_vote": "vote of 10 nearest neighbours",
    "cleanlab": "cleanlab, adjusted probabilities",
}
SHOWN = (
    "trusted_finite_loss",
    "trusted_finite",
    "trusted_consensus",
    "consensus",
    "trusted_jvp",
    "trusted_jvp_cos",
    "trusted_grad_cos",
    "gradient_norm",
    "self_jvp",
    "self_preconditioned",
    "loss",
    "early_loss",
    "out_of_fold_margin",
    "out_of_fold_logistic",
    "trusted_logistic",
    "knn_vote",
    "knn_shapley",
    "lava",
)
# forward-only and by influence; the other forward-only ones are plain baselines
INFLUENCE = (
    "trusted_jvp",
    "trusted_jvp_cos",
    "trusted_finite",
    "trusted_finite_loss",
    "trusted_preconditioned",
    "trusted_early_ensemble",
    "self_jvp",
)
# the mean rank by several: ours only if influence is among them
PARTS = {
    "consensus": ("out_of_fold_margin", "early_loss", "loss"),
    "trusted_consensus": ("out_of_fold_margin", "early_loss", "loss", "trusted_finite_loss"),
}


def kind_of(name: str, entry: Row) -> str:
    """Whether a method is ours, by influence and forward-only, a gradient or a plain baseline.

    A combination is ours if influence is among its parts.
    """
    if any(part in INFLUENCE for part in PARTS.get(name, (name,))):
        return "ours"
    return "gradients" if entry["forward_only"] is False else "baseline"


def kind_cell(name: str, entry: Row) -> str:
    """Its kind, and whether it combines several."""
    return kind_of(name, entry) + (", combined" if name in PARTS else "")


def entries(rows: list[Row]) -> Row:
    """The methods that every case has."""
    return {
        name: entry
        for name, entry in rows[0]["methods"].items()
        if all(name in row["methods"] for row in rows)
    }


def listed(names: Iterable[str]) -> str:
    """Names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)
