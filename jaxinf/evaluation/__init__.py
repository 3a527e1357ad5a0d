"""How good scores are, given the truth: pure functions of numpy arrays, on the host.

Higher scores always mean more: more likely the planted source, more suspicious, more helpful;
every docstring says which. Random functions take `seed: int` and draw from
`numpy.random.default_rng(seed)`.
"""

from jaxinf.evaluation.correlation import linear_datamodeling_score, pearson, spearman
from jaxinf.evaluation.detection import average_precision, detection_auc, detection_curve
from jaxinf.evaluation.hits import (
    hit_rate,
    mean_reciprocal_rank,
    ranks,
    recall_at_k,
    top_k_indices,
    top_k_overlap,
)
from jaxinf.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    clopper_pearson,
    mean_interval,
    paired_bootstrap,
)

__all__ = [
    "Interval",
    "average_precision",
    "bootstrap_interval",
    "clopper_pearson",
    "detection_auc",
    "detection_curve",
    "hit_rate",
    "linear_datamodeling_score",
    "mean_interval",
    "mean_reciprocal_rank",
    "paired_bootstrap",
    "pearson",
    "ranks",
    "recall_at_k",
    "spearman",
    "top_k_indices",
    "top_k_overlap",
]
