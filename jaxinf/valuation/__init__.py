"""Value: which training examples are worth having, before any model is trained?

A training set is worth what it costs to transport it onto the validation set; an example is worth
what its mass adds to that cost. Every method takes the same two labelled sets and returns values,
higher = more worth having.
"""

from jaxinf.valuation.banzhaf import data_banzhaf
from jaxinf.valuation.calibration import calibrated_gradients, group_gradients
from jaxinf.valuation.certificate import Certificate
from jaxinf.valuation.classes import bin_targets
from jaxinf.valuation.columns import one_hot, raw_features, standardise
from jaxinf.valuation.data_oob import data_oob
from jaxinf.valuation.distance import class_wise_distance
from jaxinf.valuation.embed import clip_images, embed, hidden_layer, preact_resnet18
from jaxinf.valuation.geometry import ClassWiseGeometry
from jaxinf.valuation.hierarchical import HierarchicalResult, sava
from jaxinf.valuation.inputs import Valuation, Valuator, Values
from jaxinf.valuation.knn_shapley import knn_shapley
from jaxinf.valuation.lava import LavaResult, lava
from jaxinf.valuation.mmd import mmd_values
from jaxinf.valuation.nearest import nearest_validation
from jaxinf.valuation.selection import select
from jaxinf.valuation.semivalues import loo_values
from jaxinf.valuation.shapley import beta_shapley, data_shapley
from jaxinf.valuation.sides import ValuationWarning
from jaxinf.valuation.supplier_values import source_gains, source_values
from jaxinf.valuation.transport import Transport, solve_transport
from jaxinf.valuation.utility import knn_utility, logistic_utility

__all__ = [
    "Certificate",
    "ClassWiseGeometry",
    "HierarchicalResult",
    "LavaResult",
    "Transport",
    "Valuation",
    "ValuationWarning",
    "Valuator",
    "Values",
    "beta_shapley",
    "bin_targets",
    "calibrated_gradients",
    "class_wise_distance",
    "clip_images",
    "data_banzhaf",
    "data_oob",
    "data_shapley",
    "embed",
    "group_gradients",
    "hidden_layer",
    "knn_shapley",
    "knn_utility",
    "lava",
    "logistic_utility",
    "loo_values",
    "mmd_values",
    "nearest_validation",
    "one_hot",
    "preact_resnet18",
    "raw_features",
    "sava",
    "select",
    "solve_transport",
    "source_gains",
    "source_values",
    "standardise",
]
