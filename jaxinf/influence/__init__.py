"""Influence: which training examples made the model say this?

A query becomes a direction in parameter space; every training example is scored by how its
loss changes when the model moves along it. Positive scores are proponents: training on the
example lowers the query's loss.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxinf.influence.attribute import attribute
from jaxinf.influence.attribution import Attribution, Plan
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.bm25 import bm25, word_ids
from jaxinf.influence.compose import (
    checkpoint_direction,
    from_direction,
    inverse_curvature_direction,
    sum_directions,
    unrolled_direction,
    update_direction,
)
from jaxinf.influence.convergence import InfluenceWarning
from jaxinf.influence.cost_model import CostModel, measure_rates
from jaxinf.influence.curvature import GaussNewton
from jaxinf.influence.early_ensemble import early_ensemble, weight_by_doubt
from jaxinf.influence.ensemble import ensemble, over_checkpoints, stack_checkpoints
from jaxinf.influence.forward_inf import forward_inf, forward_inf_jvp
from jaxinf.influence.gradients import grad_cos, grad_dot
from jaxinf.influence.influence_function import influence_function
from jaxinf.influence.logra import logra
from jaxinf.influence.mirrored_unroll import mirrored_unroll
from jaxinf.influence.nearest import knn_attribution
from jaxinf.influence.normalise import normalise_by_gradient_norm, normalise_by_loss
from jaxinf.influence.planner import Planner
from jaxinf.influence.queries import QueryGroups, group_queries
from jaxinf.influence.released import released_forward_inf
from jaxinf.influence.representer import representer_points
from jaxinf.influence.scoring_plan import ScoringPlan
from jaxinf.influence.self_influence import normalise_by_self_influence, self_influence
from jaxinf.influence.signatures import (
    content_hashes,
    minhash_signatures,
    perceptual_hashes,
    signature_match,
)
from jaxinf.influence.similarity import representation_similarity
from jaxinf.influence.tracin import tracin
from jaxinf.influence.trak import trak

if TYPE_CHECKING:
    from jaxinf.influence.ground_truth import draw_subsets as draw_subsets
    from jaxinf.influence.ground_truth import fit_convex as fit_convex
    from jaxinf.influence.ground_truth import fit_datamodels as fit_datamodels
    from jaxinf.influence.ground_truth import leave_one_out as leave_one_out
    from jaxinf.influence.ground_truth import leave_one_out_ridge as leave_one_out_ridge
    from jaxinf.influence.ground_truth import mirrored_leave_one_out as mirrored_leave_one_out
    from jaxinf.influence.ground_truth import retrain_on_subsets as retrain_on_subsets
    from jaxinf.influence.ground_truth import sgd_trainer as sgd_trainer

# training again needs checkpoints and models: loaded when first used
_GROUND_TRUTH = (
    "draw_subsets",
    "fit_convex",
    "fit_datamodels",
    "leave_one_out",
    "leave_one_out_ridge",
    "mirrored_leave_one_out",
    "retrain_on_subsets",
    "sgd_trainer",
)

__all__ = [
    "Attribution",
    "Attributor",
    "CostModel",
    "GaussNewton",
    "InfluenceWarning",
    "Plan",
    "Planner",
    "QueryGroups",
    "ScoringPlan",
    "attribute",
    "bm25",
    "checkpoint_direction",
    "content_hashes",
    "draw_subsets",
    "early_ensemble",
    "ensemble",
    "fit_convex",
    "fit_datamodels",
    "forward_inf",
    "forward_inf_jvp",
    "from_direction",
    "grad_cos",
    "grad_dot",
    "group_queries",
    "influence_function",
    "inverse_curvature_direction",
    "knn_attribution",
    "leave_one_out",
    "leave_one_out_ridge",
    "logra",
    "measure_rates",
    "minhash_signatures",
    "mirrored_leave_one_out",
    "mirrored_unroll",
    "normalise_by_gradient_norm",
    "normalise_by_loss",
    "normalise_by_self_influence",
    "over_checkpoints",
    "perceptual_hashes",
    "released_forward_inf",
    "representation_similarity",
    "representer_points",
    "retrain_on_subsets",
    "self_influence",
    "sgd_trainer",
    "signature_match",
    "stack_checkpoints",
    "sum_directions",
    "tracin",
    "trak",
    "unrolled_direction",
    "update_direction",
    "weight_by_doubt",
    "word_ids",
]


def __getattr__(name: str) -> Any:
    if name in _GROUND_TRUTH:
        return getattr(importlib.import_module("jaxinf.influence.ground_truth"), name)
    raise AttributeError(f"module 'jaxinf.influence' has no attribute {name!r}")
