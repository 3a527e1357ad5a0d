"""Membership: was a pair of image and text in a model's training set?

A pair is a member if the model fits it better than pairs it has not seen, beyond what a blind
control can tell. Every score is higher for what is more likely a member; no score means anything
without `membership_report`.
"""

from jaxinf.membership.augmentation_enhanced import (
    TRANSFORMATIONS,
    ViewSimilarities,
    augmentation_enhanced_attack,
    augmentation_score,
    view_similarities,
)
from jaxinf.membership.calibration import population_ratio, reference_difference
from jaxinf.membership.controls import bag_of_words_control, feature_control
from jaxinf.membership.cosine import cosine_similarity_attack
from jaxinf.membership.figures import ScoreFigures, SeedSpread
from jaxinf.membership.hygiene import (
    Overlap,
    caption_overlap,
    normalise_caption,
    url_overlap,
)
from jaxinf.membership.near_duplicates import (
    iid_split,
    image_overlap,
    near_duplicate_groups,
    perceptual_hashes,
)
from jaxinf.membership.pseudo_members import PseudoMembers, select_pseudo_members
from jaxinf.membership.report import MembershipReport, membership_report
from jaxinf.membership.verdict import Difference, Verdict
from jaxinf.membership.weakly_supervised import (
    WeaklySupervised,
    repeat_weakly_supervised_attack,
    weakly_supervised_attack,
)

__all__ = [
    "TRANSFORMATIONS",
    "Difference",
    "MembershipReport",
    "Overlap",
    "PseudoMembers",
    "ScoreFigures",
    "SeedSpread",
    "Verdict",
    "ViewSimilarities",
    "WeaklySupervised",
    "augmentation_enhanced_attack",
    "augmentation_score",
    "bag_of_words_control",
    "caption_overlap",
    "cosine_similarity_attack",
    "feature_control",
    "iid_split",
    "image_overlap",
    "membership_report",
    "near_duplicate_groups",
    "normalise_caption",
    "perceptual_hashes",
    "population_ratio",
    "reference_difference",
    "repeat_weakly_supervised_attack",
    "select_pseudo_members",
    "url_overlap",
    "view_similarities",
    "weakly_supervised_attack",
]
