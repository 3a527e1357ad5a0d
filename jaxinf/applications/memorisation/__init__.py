"""Which examples does a model know by heart? Retrained scores, and cheap estimates of them.

Memorisation and influence in the sense of Feldman and Zhang: what a model predicts when an
example was trained on, less what it predicts when it was not.
"""

from jaxinf.applications.memorisation.estimates import RECIPES, Recipe, memorisation_estimates
from jaxinf.applications.memorisation.folds import fold_subsets
from jaxinf.applications.memorisation.reliability import (
    Reliability,
    split_half_reliability,
    tie_ceiling,
)
from jaxinf.applications.memorisation.retrained import RetrainedOutputs, retrain_and_record
from jaxinf.applications.memorisation.scores import (
    InOutDifference,
    influence_scores,
    memorisation_scores,
)

__all__ = [
    "RECIPES",
    "InOutDifference",
    "Recipe",
    "Reliability",
    "RetrainedOutputs",
    "fold_subsets",
    "influence_scores",
    "memorisation_estimates",
    "memorisation_scores",
    "retrain_and_record",
    "split_half_reliability",
    "tie_ceiling",
]
