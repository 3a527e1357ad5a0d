"""The weakly supervised attack: a classifier of known non-members and pseudo-members."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.errors import InputError, check_count, check_key
from jaxinf.membership.attack_network import Plan, plan, train_and_score
from jaxinf.membership.pseudo_members import check_pairs, refuse_overlap, select_pseudo_members
from jaxinf.typing import AnyArray

Variant: TypeAlias = Literal["best", "released"]
"""Which weights score: those of the best epoch, or the paper's code to the letter."""


@dataclass(frozen=True)
class WeaklySupervised:
    """Scores of a weakly supervised attack, and how much they owe to chance.

    Attributes:
        scores: float[N], the mean over the attack seeds, higher = more likely a member.
        seed_scores: float[S, N], of each attack seed.
        threshold: the cosine similarity from which on unlabelled pairs were pseudo-members.
        num_pseudo_members: how many were.
        num_per_class: how many of each class every seed trained and validated on.
        epochs: int[S], how many each seed trained for.
        validation_loss: float[S], of the weights that score, in nats.
    """

    scores: Float[jax.Array, " N"]
    seed_scores: Float[jax.Array, "S N"]
    threshold: float
    num_pseudo_members: int
    num_per_class: int
    epochs: np.ndarray
    validation_loss: np.ndarray


def weakly_supervised_attack(
    nonmember_features: Float[AnyArray, "M 2d"],
    unlabeled_features: Float[AnyArray, "U 2d"],
    target_features: Float[AnyArray, "N 2d"],
    *,
    key: jax.Array,
    threshold_std: float = 1.5,
    num_seeds: int = 8,
    variant: Variant = "best",
    max_epochs: int = 15,
    min_count: int = 100,
) -> Float[jax.Array, " N"]:
    """The mean score of `repeat_weakly_supervised_attack`: same arguments, same errors.

    Returns:
        float[N], higher = more likely a member.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pairs = rng.normal(size=(90, 4)).astype(np.float32)
        >>> scores = weakly_supervised_attack(pairs[:40], pairs[40:80], pairs[80:],
        ...     key=jax.random.key(0), threshold_std=-1.0, num_seeds=1, max_epochs=1, min_count=20)
        >>> scores.shape
        (10,)
    """
    return repeat_weakly_supervised_attack(
        nonmember_features,
        unlabeled_features,
        target_features,
        key=key,
        threshold_std=threshold_std,
        num_seeds=num_seeds,
        variant=variant,
        max_epochs=max_epochs,
        min_count=min_count,
    ).scores


def repeat_weakly_supervised_attack(
    nonmember_features: Float[AnyArray, "M 2d"],
    unlabeled_features: Float[AnyArray, "U 2d"],
    target_features: Float[AnyArray, "N 2d"],
    *,
    key: jax.Array,
    threshold_std: float = 1.5,
    num_seeds: int = 8,
    variant: Variant = "best",
    max_epochs: int = 15,
    min_count: int = 100,
) -> WeaklySupervised:
    """Score each pair by a network that tells known non-members from pseudo-members (WSA).

    Features are [image ‖ text], both halves as the encoders give them (scale them to unit norm
    for CLIP). Unlabelled pairs with a similarity of at least mean + λ · std of the known
    non-members' pass for members; the larger class is thinned at random to the smaller; 10 % is
    held out at random; an MLP 2d → 512 → 256 → 128 → 2 with ReLU learns by cross-entropy, Adam
    1e-3, batches of 32, for at most 15 epochs, until the held-out loss has not fallen for 3. The
    attack is repeated from `num_seeds` random starts (thinning, split, weights, order), all in
    one compiled program.

    "best" keeps the weights of the lowest held-out loss and scores by the difference of the two
    logits. "released" does as the paper's code: the last weights, after the patience has run
    out, score by the sigmoid of the member logit alone (which saturates into ties), and the
    held-out loss that stops the training is the sum of the batches' means.

    Neither known non-members nor unlabelled pairs may be among the targets: the network has
    learnt how to answer for them. If known non-members and targets come from different corpora,
    this network learns to tell the corpora, and only `membership_report`'s controls will say so.

    Args:
        nonmember_features: number[M, 2d], of pairs that the model cannot have seen.
        unlabeled_features: number[U, 2d], of pairs of which some are members.
        target_features: number[N, 2d], of the pairs to be scored.
        key: random key.
        threshold_std: λ. Fix it beforehand: on validation pairs, never on the labels reported.
        num_seeds: S.
        variant: "best" or "released".
        max_epochs: passes over the training pairs, at most.
        min_count: fewest pseudo-members, and non-members, to go on with.

    Returns:
        `WeaklySupervised`.

    Raises:
        InputError: for features of the wrong shape or not finite, sets that share a row, too few
            pseudo-members (naming the λ that would give enough), or options out of range.

    Reference:
        Ko et al., "Practical Membership Inference Attacks Against Large-Scale Multi-Modal Models:
        A Pilot Study", ICCV 2023 (arXiv 2310.00108); ruoxi-jia-group/CLIP-MIA, commit 1d8317a.

    Example:
        >>> pairs = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
        >>> known, unlabeled, targets = pairs[:40], pairs[40:], pairs[80:]
        >>> repeat_weakly_supervised_attack(known, unlabeled, targets, key=jax.random.key(0))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: unlabeled_features and target_features share 10 rows, first
        unlabeled_features[40] = target_features[0]: drop them from one
    """
    check_key(key)
    check_count(num_seeds, "num_seeds")
    check_count(max_epochs, "max_epochs")
    check_count(min_count, "min_count", minimum=8)  # a tenth of both classes is held out
    if variant not in ("best", "released"):
        raise InputError(f'variant is {variant!r}: "best" or "released"')
    targets = check_pairs(target_features, "target_features")
    refuse_overlap(
        nonmember_features=nonmember_features,
        unlabeled_features=unlabeled_features,
        target_features=target_features,
    )
    chosen = select_pseudo_members(
        nonmember_features, unlabeled_features, threshold_std=threshold_std, min_count=min_count
    )
    # all rows go in, and places say which are used: however many those are, the shapes stay
    features = jnp.concatenate([jnp.asarray(unlabeled_features), jnp.asarray(nonmember_features)])
    num_unlabeled, num_nonmembers = len(unlabeled_features), len(nonmember_features)
    members = np.flatnonzero(chosen.mask)
    keys = jax.random.split(key, num_seeds)
    plans = [
        plan(seed, members, num_unlabeled + np.arange(num_nonmembers), max_epochs) for seed in keys
    ]
    scores, epochs, losses = train_and_score(
        features.astype(targets.dtype),
        targets,
        keys,
        Plan(*map(np.stack, zip(*plans, strict=True))),
        num_unlabeled=num_unlabeled,
        keep_best=variant == "best",
    )
    return WeaklySupervised(
        scores=jnp.mean(scores, axis=0),
        seed_scores=scores,
        threshold=chosen.threshold,
        num_pseudo_members=len(members),
        num_per_class=min(len(members), num_nonmembers),
        epochs=np.asarray(epochs),
        validation_loss=np.asarray(losses),
    )
