"""From what the encoders made of the pairs to scores, and to what they are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxinf.cli.membership_choices import Attack
from jaxinf.cli.membership_features import Encoded
from jaxinf.cli.membership_pairs import NONMEMBERS, TARGETS, UNLABELED, Pairs
from jaxinf.errors import InputError
from jaxinf.membership import (
    MembershipReport,
    ViewSimilarities,
    WeaklySupervised,
    augmentation_score,
    feature_control,
    membership_report,
    reference_difference,
    repeat_weakly_supervised_attack,
)

FEWEST = 20
"""Fewest targets, and non-members, that anything is said of."""
FEWEST_TO_LEARN = 100
"""Fewest pseudo-members, and non-members, that the weakly supervised attack learns from."""
UNTRAINED, REFERENCE = "untrained encoder", "another model's CSA"
CALIBRATED = "CSA less reference"


@dataclass(frozen=True)
class Options:
    """Settings of the attacks, fixed before any score is seen.

    Attributes:
        attacks: which.
        weight: of AEA's drop in similarity.
        threshold_std: λ of WSA.
        attack_seeds: how many times WSA starts anew.
        num_resamples: of the bootstrap.
    """

    attacks: tuple[Attack, ...]
    weight: float
    threshold_std: float
    attack_seeds: int
    num_resamples: int = 2000


@dataclass(frozen=True)
class Judged:
    """What was scored, and what it is worth.

    Attributes:
        report: figures, controls, verdict.
        scores: of each attack on all pairs that it may score, by set: float[N], NaN where the
            attack has learnt from the pair.
        by_truth: whether the targets' own truth was judged by, and not the claim that all of them
            are members.
        learnt: what the weakly supervised attack made of its pseudo-members, if it ran.
    """

    report: MembershipReport
    scores: Mapping[str, Mapping[str, np.ndarray]]
    by_truth: bool
    learnt: WeaklySupervised | None = None


def check_enough(sets: Mapping[str, Pairs], attacks: Sequence[Attack]) -> None:
    """Refuse sets that are too small for what was asked, before any image is opened.

    Raises:
        InputError: naming the set, how many pairs it has and how many are needed.
    """
    learns = Attack.WSA in attacks
    needed = {
        TARGETS: FEWEST,
        # half of them train the attack, and the other half judge it
        NONMEMBERS: 2 * FEWEST_TO_LEARN if learns else FEWEST,
        UNLABELED: FEWEST_TO_LEARN if learns else 0,
    }
    for name, pairs in sets.items():
        if len(pairs) < needed[name]:
            why = " for wsa (leave it out with --attack csa,aea)" if learns else ""
            gone = f", after {len(pairs.dropped)} were left out" if pairs.dropped else ""
            raise InputError(
                f"--{name} has {len(pairs)} pairs{gone}: at least {needed[name]} are needed{why}"
            )
    truth = sets[TARGETS].is_member
    if truth is not None and not truth.any():
        raise InputError(
            "--targets: is_member is false in every row: there is no member to be found"
        )
    if by_truth(sets[TARGETS]):
        assert truth is not None
        fewest = min(truth.sum(), (~truth).sum())
        if fewest < FEWEST:
            raise InputError(
                f"--targets: is_member leaves {fewest} pairs on one side: at least {FEWEST} of "
                "each are needed"
            )


def by_truth(targets: Pairs) -> bool:
    """Whether the targets hold members and non-members by their own table."""
    return targets.is_member is not None and not targets.is_member.all()


def judge(sets: Mapping[str, tuple[Pairs, Encoded]], options: Options, *, key: jax.Array) -> Judged:
    """Run the attacks, and judge them beside blind controls.

    Where the targets' table tells members from non-members, the attacks are judged among the
    targets, and the known non-members set the thresholds. Otherwise the claim is that all targets
    are members, and they are judged against the known non-members, of which a random half sets
    the thresholds. Non-members that the weakly supervised attack has learnt from judge nothing.

    Args:
        sets: by name, pairs with what the encoders made of them.
        options: of the attacks.
        key: random key.

    Raises:
        InputError: too few pseudo-members, naming the λ that would give enough.
    """
    split_key, attack_key, report_key = jax.random.split(key, 3)
    targets, target_codes = sets[TARGETS]
    others, other_codes = sets[NONMEMBERS]
    learns = np.zeros(len(others), bool)
    if Attack.WSA in options.attacks:
        order = np.asarray(jax.random.permutation(split_key, len(others)))
        learns[order[: len(others) // 2]] = True
    scores = {name: _similarity_scores(codes, options) for name, (_, codes) in sets.items()}
    seeds: dict[str, dict[str, np.ndarray]] = {name: dict(row) for name, row in scores.items()}
    learnt = None
    if Attack.WSA in options.attacks:
        held = np.flatnonzero(~learns)
        learnt = _learn(sets, learns, attack_key, options)
        drawn = np.asarray(learnt.seed_scores)
        seeds[TARGETS]["WSA"] = drawn[:, : len(targets)]
        seeds[NONMEMBERS]["WSA"] = np.full((len(drawn), len(others)), np.nan)
        seeds[NONMEMBERS]["WSA"][:, held] = drawn[:, len(targets) :]
    named = {
        name: {attack: np.atleast_2d(row).mean(axis=0) for attack, row in rows.items()}
        for name, rows in seeds.items()
    }
    truth = by_truth(targets)
    names = list(seeds[TARGETS])
    if truth:
        assert targets.is_member is not None
        is_member = targets.is_member
        judged = {name: seeds[TARGETS][name] for name in names}
        blind, captions = target_codes, list(targets.captions)
        known = {name: named[NONMEMBERS][name][~learns] for name in names}
    else:
        is_member = np.arange(len(targets) + int((~learns).sum())) < len(targets)
        judged = {
            name: np.concatenate(
                [seeds[TARGETS][name], seeds[NONMEMBERS][name][..., ~learns]], axis=-1
            )
            for name in names
        }
        blind = _join(target_codes, other_codes.rows(~learns))
        kept = np.flatnonzero(~learns)
        captions = [*targets.captions, *(others.captions[row] for row in kept)]
        known = None
    controls = {UNTRAINED: feature_control(blind.untrained, is_member, seed=0)}
    if blind.reference is not None:
        controls[REFERENCE] = blind.reference
    report = membership_report(
        judged,
        is_member,
        key=report_key,
        controls=controls,
        captions=captions,
        known_nonmembers=known,
        num_resamples=options.num_resamples,
    )
    return Judged(report, named, truth, learnt)


def _similarity_scores(codes: Encoded, options: Options) -> dict[str, np.ndarray]:
    found = {}
    if Attack.CSA in options.attacks:
        found["CSA"] = codes.similarity
        if codes.reference is not None:
            found[CALIBRATED] = np.asarray(reference_difference(codes.similarity, codes.reference))
    if Attack.AEA in options.attacks:
        assert codes.views is not None
        views = ViewSimilarities(
            jax.numpy.asarray(codes.similarity), jax.numpy.asarray(codes.views)
        )
        found["AEA"] = np.asarray(augmentation_score(views, options.weight))
    return found


def _join(first: Encoded, second: Encoded) -> Encoded:
    both = zip(first, second, strict=True)
    return Encoded(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in both))  # pyright: ignore[reportArgumentType]


def _learn(
    sets: Mapping[str, tuple[Pairs, Encoded]],
    learns: np.ndarray,
    key: jax.Array,
    options: Options,
) -> WeaklySupervised:
    features = {name: codes.features for name, (_, codes) in sets.items()}
    targets, others, unlabeled = (features[n] for n in (TARGETS, NONMEMBERS, UNLABELED))
    assert targets is not None
    assert others is not None
    assert unlabeled is not None
    return repeat_weakly_supervised_attack(
        others[learns],
        unlabeled,
        np.concatenate([targets, others[~learns]]),
        key=key,
        threshold_std=options.threshold_std,
        num_seeds=options.attack_seeds,
        min_count=FEWEST_TO_LEARN,
    )
