"""What `jaxinf mislabelled` offers by name; light, since every command's help imports it."""

from enum import StrEnum


class Suspicion(StrEnum):
    """A method of suspicion; its value is what the user types."""

    OUT_OF_FOLD_MARGIN = "out-of-fold-margin"
    OUT_OF_FOLD_LOSS = "out-of-fold-loss"
    CONFIDENT_LEARNING = "confident-learning"
    CONSENSUS = "consensus"
    EARLY_LOSS = "early-loss"
    EARLY_MARGIN = "early-margin"
    LOSS = "loss"
    GRADIENT_NORM = "gradient-norm"
    SELF_JVP = "self-jvp"
    SELF_PRECONDITIONED = "self-preconditioned"
    TRUSTED_CONSENSUS = "trusted-consensus"
    TRUSTED_FINITE_LOSS = "trusted-finite-loss"
    TRUSTED_FINITE = "trusted-finite"
    TRUSTED_JVP = "trusted-jvp"
    TRUSTED_JVP_COS = "trusted-jvp-cos"
    TRUSTED_PRECONDITIONED = "trusted-preconditioned"
    TRUSTED_EARLY_ENSEMBLE = "trusted-early-ensemble"
    TRUSTED_GRAD_DOT = "trusted-grad-dot"
    TRUSTED_GRAD_COS = "trusted-grad-cos"


class Classifier(StrEnum):
    """What is trained in the command; its value is what the user types."""

    LOGISTIC = "logistic"
    MLP = "mlp"
