"""Influence: which training examples made the model say this?

A query becomes a direction in parameter space; every training example is scored by how its
loss changes when the model moves along it. Positive scores are proponents: training on the
example lowers the query's loss.
"""

from jaxinf.influence.attribute import attribute
from jaxinf.influence.attribution import Attribution, Plan
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.forward_inf import forward_inf, forward_inf_jvp
from jaxinf.influence.gradients import grad_cos, grad_dot
from jaxinf.influence.normalise import normalise_by_gradient_norm, normalise_by_loss
from jaxinf.influence.queries import QueryGroups, group_queries
from jaxinf.influence.released import released_forward_inf
from jaxinf.influence.similarity import representation_similarity

__all__ = [
    "Attribution",
    "Attributor",
    "Plan",
    "QueryGroups",
    "attribute",
    "forward_inf",
    "forward_inf_jvp",
    "grad_cos",
    "grad_dot",
    "group_queries",
    "normalise_by_gradient_norm",
    "normalise_by_loss",
    "released_forward_inf",
    "representation_similarity",
]
