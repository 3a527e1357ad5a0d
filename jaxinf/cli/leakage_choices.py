"""What `jaxinf leakage` offers by name; light, since every command's help imports it."""

from enum import StrEnum


class Compare(StrEnum):
    """How queries are compared with training examples; its value is what the user types."""

    DISTANCE = "distance"
    SHIFTED = "shifted"
    COSINE = "cosine"
    HASH = "hash"
    BYTES = "bytes"


class Influence(StrEnum):
    """By which influence, where a model is given."""

    REFERENCE = "reference"
    GRAD_COS = "grad-cos"
    GRAD_DOT = "grad-dot"
    FORWARD_INF = "forward-inf"
    FORWARD_INF_JVP = "forward-inf-jvp"


class StatisticName(StrEnum):
    """What is compared between queries."""

    CONTRAST = "contrast"
    GAP = "gap"
    RATIO = "ratio"
    TOP = "top"


class TableFormat(StrEnum):
    """File of the leaks."""

    CSV = "csv"
    PARQUET = "parquet"
