"""How good scores are, given the truth: pure functions, of numpy arrays on the host.

Higher scores always mean more: more likely the planted source, more suspicious, more helpful;
every docstring says which. Random functions take `seed: int` and draw from
`numpy.random.default_rng(seed)`; those of `roc` and `roc_bootstrap` run on the device, and the
bootstrap takes a jax key.
"""

from jaxinf.evaluation.brittleness import Brittleness, brittleness
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
from jaxinf.evaluation.lds import Lds, lds
from jaxinf.evaluation.loo import LooCorrelation, loo_correlation
from jaxinf.evaluation.randomisation import RandomisationCheck, randomisation_check, scramble
from jaxinf.evaluation.roc import RocWarning, roc_auc, tpr_at_fpr, why_no_rate
from jaxinf.evaluation.roc_bootstrap import RocBootstrap, bootstrap_roc, percentile_interval
from jaxinf.evaluation.thresholds import (
    CalibratedAccuracy,
    OracleAccuracy,
    RocCurve,
    calibrated_accuracy,
    oracle_accuracy,
    roc_curve,
    threshold_at_fpr,
)

__all__ = [
    "Brittleness",
    "CalibratedAccuracy",
    "Interval",
    "Lds",
    "LooCorrelation",
    "OracleAccuracy",
    "RandomisationCheck",
    "RocBootstrap",
    "RocCurve",
    "RocWarning",
    "average_precision",
    "bootstrap_interval",
    "bootstrap_roc",
    "brittleness",
    "calibrated_accuracy",
    "clopper_pearson",
    "detection_auc",
    "detection_curve",
    "hit_rate",
    "lds",
    "linear_datamodeling_score",
    "loo_correlation",
    "mean_interval",
    "mean_reciprocal_rank",
    "oracle_accuracy",
    "paired_bootstrap",
    "pearson",
    "percentile_interval",
    "randomisation_check",
    "ranks",
    "recall_at_k",
    "roc_auc",
    "roc_curve",
    "scramble",
    "spearman",
    "threshold_at_fpr",
    "top_k_indices",
    "top_k_overlap",
    "tpr_at_fpr",
    "why_no_rate",
]
