"""Influence in language models: which training sentences made the model answer so?"""

from jaxinf.applications.language.arrays import encode_answers, encode_texts, same_length
from jaxinf.applications.language.combine import (
    centre_over_queries,
    rank_of_first,
    reciprocal_rank_fusion,
    sum_of_z_scores,
)
from jaxinf.applications.language.losses import causal_lm_loss

__all__ = [
    "causal_lm_loss",
    "centre_over_queries",
    "encode_answers",
    "encode_texts",
    "rank_of_first",
    "reciprocal_rank_fusion",
    "same_length",
    "sum_of_z_scores",
]
