"""One training run of the membership benchmark: dealt out, trained, encoded, attacked."""

from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from benchmarks.membership_sets import SHARES, SIZE, PairSet, deal
from jaxinf.errors import InputError
from jaxinf.evaluation.roc import roc_auc, tpr_at_fpr, why_no_rate
from jaxinf.membership import (
    TRANSFORMATIONS,
    ViewSimilarities,
    augmentation_score,
    bag_of_words_control,
    feature_control,
    repeat_weakly_supervised_attack,
    view_similarities,
)
from jaxinf.models.clip import Preprocess, TrainedCLIP
from jaxinf.models.clip_train import train_clip, untrained_clip

WEIGHTS = (0.03, 0.1, 0.3, 1.0)
BATCH, RATE = 128, 2e-3
# small batches, so that small sets see updates enough to be learnt in the same number of epochs
GROWTH_BATCH = 32
_PREPROCESS = Preprocess(size=SIZE, resize_to=SIZE)


class Effort(NamedTuple):
    """How much is spent on an attack: views per transformation, starts of WSA, λ to try."""

    draws: int = 4
    attack_seeds: int = 4
    thresholds: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


QUICK = Effort(1, 1, (-1.0,))


class Settings(NamedTuple):
    """Of the attacks, chosen on validation pairs: which transformations, w and λ."""

    transformations: tuple[int, ...]
    weight: float
    threshold_std: float


class Trial(NamedTuple):
    """One training run, dealt out and encoded; features are [image ‖ text]."""

    pairs: PairSet
    parts: dict[str, np.ndarray]
    features: np.ndarray
    views: ViewSimilarities
    is_member: np.ndarray
    blind: dict[str, np.ndarray]
    key: jax.Array

    @property
    def judged(self) -> np.ndarray:
        """Rows that attacks are judged by, members first."""
        return np.concatenate([self.parts["judged members"], self.parts["judged non-members"]])


def encode_image(model: TrainedCLIP, pixels: jax.Array) -> jax.Array:
    """Features of images in bytes or in [0, 1]."""
    return model.encode_image(_PREPROCESS.normalise(pixels))


_encode_image = jax.jit(encode_image)


def encode(model: TrainedCLIP, pairs: PairSet, rows: np.ndarray) -> np.ndarray:
    """[image ‖ text] of some pairs, in blocks of one size."""
    found = []
    for start in range(0, len(rows), 500):
        block = rows[np.minimum(np.arange(start, start + 500), len(rows) - 1)]
        both = _encode_image(model, pairs.images[block]), model.encode_text(pairs.tokens[block])
        found.append(np.concatenate([np.asarray(side) for side in both], axis=1))
    return np.concatenate(found)[: len(rows)]


def similarity(features: np.ndarray) -> np.ndarray:
    """Cosine similarity of the two halves, which have unit norm."""
    half = features.shape[1] // 2
    return np.sum(features[:, :half] * features[:, half:], axis=1)


def run_trial(
    pairs: PairSet, epochs: int, seed: int, *, draws: int = 0, batch_size: int = BATCH
) -> Trial:
    """Deal out, train, encode, and score by everything that has no settings.

    Args:
        pairs: the set.
        epochs: passes over the members.
        seed: of the deal, the training and all that is drawn.
        draws: views per transformation; 0 leaves out what AEA and the controls need.
        batch_size: pairs that are told apart at once in training.
    """
    alone = len(np.unique(pairs.groups)) == len(pairs.groups)
    parts = deal(pairs.groups, SHARES, seed, keep=1.0 if alone else 0.95)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(71), seed), 5)

    def fit(rows: np.ndarray, key: jax.Array) -> TrainedCLIP:
        return train_clip(
            pairs.config,
            pairs.images[rows],
            pairs.tokens[rows],
            key=key,
            num_epochs=epochs,
            batch_size=min(batch_size, len(rows)),
            learning_rate=RATE,
        ).model

    model = fit(np.concatenate([parts["judged members"], parts["unlabeled members"]]), keys[0])
    features = encode(model, pairs, np.arange(len(pairs.tokens)))
    judged = np.concatenate([parts["judged members"], parts["judged non-members"]])
    is_member = np.arange(len(judged)) < len(parts["judged members"])
    half = features.shape[1] // 2
    views, blind = ViewSimilarities(*2 * [jax.numpy.zeros(0)]), {}
    if draws:
        views = view_similarities(
            Partial(encode_image, model),
            pairs.images[judged],
            features[judged, half:],
            key=keys[1],
            draws=draws,
            batch_size=20,
        )
        control = {"seed": 0, "groups": pairs.groups[judged]}
        unseen = encode(untrained_clip(pairs.config, key=keys[2]), pairs, judged)
        other = fit(parts["others"], keys[3])
        blind = {
            "bag of words": bag_of_words_control(
                pairs.captions[judged].tolist(), is_member, **control
            ),
            "untrained encoder": feature_control(unseen, is_member, **control),
            "another model's CSA": similarity(encode(other, pairs, judged)),
        }
    return Trial(pairs, parts, features, views, is_member, blind, keys[4])


def aea_scores(trial: Trial, which: tuple[int, ...], weight: float) -> np.ndarray:
    """Scores of AEA by some of the transformations."""
    kept = ViewSimilarities(trial.views.original, trial.views.views[:, list(which)])
    return np.asarray(augmentation_score(kept, weight))


def wsa_scores(trial: Trial, threshold_std: float, attack_seeds: int) -> np.ndarray | None:
    """Scores of WSA; None where too few pairs pass for members."""
    unlabeled = [trial.parts[f"unlabeled {kind}"] for kind in ("members", "non-members")]
    try:
        return np.asarray(
            repeat_weakly_supervised_attack(
                trial.features[trial.parts["known non-members"]],
                trial.features[np.concatenate(unlabeled)],
                trial.features[trial.judged],
                key=trial.key,
                threshold_std=threshold_std,
                num_seeds=attack_seeds,
                min_count=50,
            ).scores
        )
    except InputError as error:
        print(f"  WSA: {error}")
        return None


def choose(trial: Trial, effort: Effort) -> Settings:
    """The settings of highest AUC on a trial that is not reported."""

    def auc(scores: np.ndarray | None) -> float:
        return 0.0 if scores is None else float(roc_auc(scores, trial.is_member))

    every = tuple(range(len(TRANSFORMATIONS)))
    subsets = (every, *((one,) for one in every))
    which, weight = max(
        ((which, weight) for which in subsets for weight in WEIGHTS),
        key=lambda at: auc(aea_scores(trial, *at)),
    )
    wsa = lambda std: auc(wsa_scores(trial, std, effort.attack_seeds))
    return Settings(which, weight, max(effort.thresholds, key=wsa))


def figures(scores: np.ndarray, is_member: np.ndarray) -> dict[str, float | None]:
    """AUC, and TPR at 1 % FPR where there are non-members enough."""
    ranks = np.unique(scores, return_inverse=True)[1]
    enough = why_no_rate(int((~is_member).sum()), 0.01) is None
    return {
        "auc": float(roc_auc(ranks, is_member)),
        "tpr": float(tpr_at_fpr(ranks, is_member, 0.01)) if enough else None,
    }
