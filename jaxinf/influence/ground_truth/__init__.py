"""Ground truth of influence: train again, and see.

Exact leave-one-out and its mirror for convex models; models of random subsets, and datamodels
fitted to them, for any. Positive influences are proponents throughout.
"""

from jaxinf.influence.ground_truth.convex import ConvergenceWarning, ConvexFit, fit_convex
from jaxinf.influence.ground_truth.datamodels import Datamodels, fit_datamodels
from jaxinf.influence.ground_truth.leave_one_out import LeaveOneOut, leave_one_out
from jaxinf.influence.ground_truth.mirrored import MirroredLeaveOneOut, mirrored_leave_one_out
from jaxinf.influence.ground_truth.retrain import retrain_on_subsets
from jaxinf.influence.ground_truth.ridge import leave_one_out_ridge
from jaxinf.influence.ground_truth.sgd import sgd_trainer
from jaxinf.influence.ground_truth.subsets import draw_subsets

__all__ = [
    "ConvergenceWarning",
    "ConvexFit",
    "Datamodels",
    "LeaveOneOut",
    "MirroredLeaveOneOut",
    "draw_subsets",
    "fit_convex",
    "fit_datamodels",
    "leave_one_out",
    "leave_one_out_ridge",
    "mirrored_leave_one_out",
    "retrain_on_subsets",
    "sgd_trainer",
]
