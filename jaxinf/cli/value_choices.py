"""What `jaxinf value` offers by name; light, since every command's help imports it."""

from enum import StrEnum


class Embedding(StrEnum):
    """How inputs become features; its value is what the user types."""

    AUTO = "auto"
    STANDARDISE = "standardise"
    RAW = "raw"


class Valuer(StrEnum):
    """A valuation method; its value is what the user types."""

    LAVA = "lava"
    NEAREST = "nearest"
    SAVA = "sava"
    MMD = "mmd"
    KNN_SHAPLEY = "knn-shapley"
    DATA_OOB = "data-oob"
    DATA_SHAPLEY = "data-shapley"
    BETA_SHAPLEY = "beta-shapley"
    BANZHAF = "banzhaf"
    LEAVE_ONE_OUT = "leave-one-out"
