"""Leakage: which test examples was a model trained on, and which training example is each one?

Scores in, decisions out. The scores may come from any attributor, or from a trivial baseline
(pixels, embeddings, perceptual hashes), which for exact and nearly exact copies is the one to
take: see docs/leakage.md for what finds what.

    scores ──► leak_statistics ──► p-values (clean queries, or the bulk) ──► Benjamini–Hochberg
"""

from jaxinf.applications.leakage.find import Leaks, decide_leaks, find_leaks
from jaxinf.applications.leakage.p_values import bulk_p_values, conformal_p_values
from jaxinf.applications.leakage.reference import reference_influence
from jaxinf.applications.leakage.relative import relative_to_reference
from jaxinf.applications.leakage.score import score_queries
from jaxinf.applications.leakage.statistics import LeakStatistics, leak_statistics

__all__ = [
    "LeakStatistics",
    "Leaks",
    "bulk_p_values",
    "conformal_p_values",
    "decide_leaks",
    "find_leaks",
    "leak_statistics",
    "reference_influence",
    "relative_to_reference",
    "score_queries",
]
