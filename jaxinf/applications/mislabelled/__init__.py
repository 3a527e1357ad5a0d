"""Which training labels are wrong? Suspicion with a trusted set and without one."""

from jaxinf.applications.mislabelled.cross_fit import class_folds, cross_fit, cross_fit_logistic
from jaxinf.applications.mislabelled.evidence import Evidence, Method
from jaxinf.applications.mislabelled.find import (
    METHODS,
    Suspects,
    find_mislabelled,
    suggest_labels,
)
from jaxinf.applications.mislabelled.network import network_loss, train_models
from jaxinf.applications.mislabelled.noise_rate import (
    NoiseRate,
    confident_joint,
    mixture_noise_rate,
)

__all__ = [
    "METHODS",
    "Evidence",
    "Method",
    "NoiseRate",
    "Suspects",
    "class_folds",
    "confident_joint",
    "cross_fit",
    "cross_fit_logistic",
    "find_mislabelled",
    "mixture_noise_rate",
    "network_loss",
    "suggest_labels",
    "train_models",
]
