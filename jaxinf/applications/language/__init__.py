"""Influence in language models: which training sentences made the model answer so?"""

from jaxinf.applications.language.arrays import encode_answers, encode_texts, same_length
from jaxinf.applications.language.by_token import by_token, shares_by_token, unit_weights
from jaxinf.applications.language.combine import (
    centre_over_queries,
    rank_of_first,
    reciprocal_rank_fusion,
    sum_of_z_scores,
)
from jaxinf.applications.language.facts import FactTrace, answers_of, trace_facts
from jaxinf.applications.language.guessing import LanguageWarning
from jaxinf.applications.language.losses import causal_lm_loss, sequence_loss
from jaxinf.applications.language.methods import METHODS, build_method, mean_hidden_state
from jaxinf.applications.language.packing import pack, unpack
from jaxinf.applications.language.parts import (
    TokenShares,
    segment_losses,
    segment_scores,
    token_scores,
    token_shares,
)
from jaxinf.applications.language.tokens import proponent_tokens, shades

__all__ = [
    "METHODS",
    "FactTrace",
    "LanguageWarning",
    "TokenShares",
    "answers_of",
    "build_method",
    "by_token",
    "causal_lm_loss",
    "centre_over_queries",
    "encode_answers",
    "encode_texts",
    "mean_hidden_state",
    "pack",
    "proponent_tokens",
    "rank_of_first",
    "reciprocal_rank_fusion",
    "same_length",
    "segment_losses",
    "segment_scores",
    "sequence_loss",
    "shades",
    "shares_by_token",
    "sum_of_z_scores",
    "token_scores",
    "token_shares",
    "trace_facts",
    "unit_weights",
    "unpack",
]
