"""Was this pair in a model's training set? And when is the answer worth nothing?"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.contenders import Contender
from jaxinf.cli.demonstration.membership_section import cards, results, section, summary
from jaxinf.cli.demonstration.subject import Subject
from jaxinf.datasets.scenes import digit_scenes, scene_words
from jaxinf.membership import (
    MembershipReport,
    augmentation_score,
    cosine_similarity_attack,
    feature_control,
    membership_report,
    repeat_weakly_supervised_attack,
    view_similarities,
)
from jaxinf.membership.augmentations import RandomHorizontalFlip, RandomRotation
from jaxinf.models.clip import (
    CLIPConfig,
    Preprocess,
    TextConfig,
    TrainedCLIP,
    TransformerConfig,
    VisionTransformerConfig,
)
from jaxinf.models.clip_train import train_clip, untrained_clip

_SIZE, _WIDTH, _MOST = 32, 64, 500
_EPOCHS, _BATCH, _RATE = 30, 64, 2e-3
# fixed beforehand, on other draws than any that is shown
_CHANGES, _DRAWS = (RandomRotation(15.0), RandomHorizontalFlip(probability=1.0)), 2
_WEIGHT, _THRESHOLD_STD, _ATTACK_SEEDS = 0.1, 0.5, 4
_UNTRAINED = "untrained encoder"


class Encoded(NamedTuple):
    """Pairs, with what the trained and an untrained CLIP make of them; rows are pairs."""

    images: np.ndarray
    captions: np.ndarray
    image: np.ndarray
    text: np.ndarray
    untrained: np.ndarray

    @property
    def features(self) -> np.ndarray:
        """[image ‖ text], float32[N, 2d]."""
        return np.concatenate([self.image, self.text], axis=1)

    def rows(self, chosen: slice) -> "Encoded":
        """Some of the pairs."""
        return Encoded(*(column[chosen] for column in self))


def find_members(subject: Subject, contenders: Sequence[Contender], begin: Begin) -> Answer:
    """Attack a small CLIP trained on half of one draw, judged on the other; then on another kind.

    Members and non-members of the first judgement are independent draws from one distribution.
    Those of the second are not, and blind controls see it.
    """
    seeds = np.random.SeedSequence(subject.seed).spawn(1)[0].generate_state(3).tolist()
    count = min(_MOST, len(subject.train["y"]))
    half = count // 2
    key = jax.random.key(seeds[0])
    train_key, blind_key, view_key, attack_key, *report_keys = jax.random.split(key, 6)
    words = scene_words()
    drawn = digit_scenes(3 * count + half + half // 2, seed=seeds[1], size=_SIZE)
    other = digit_scenes(2 * count, seed=seeds[2], size=_SIZE, shifted=True)
    begin("membership: training a small CLIP")
    model = train_clip(
        clip_config(words.vocab_size, words.context_length),
        drawn.images[:count],
        words(drawn.captions[:count]),
        key=train_key,
        num_epochs=_EPOCHS,
        batch_size=_BATCH,
        learning_rate=_RATE,
    ).model
    begin("membership: similarities, of images and of changed images")
    blind = untrained_clip(model.module.config, key=blind_key)
    images = np.concatenate([drawn.images, other.images])
    pairs = _encode(model, blind, images, drawn.captions + other.captions)
    sizes = {"members": half, "unlabeled members": count - half, "fresh": 2 * count}
    sizes |= {"known": half, "unlabeled": half // 2, "other": 2 * count}
    ends = np.cumsum(list(sizes.values()))
    # the weakly supervised attack learns from pairs that it is not judged by
    part = {
        name: pairs.rows(slice(end - sizes[name], end))
        for name, end in zip(sizes, ends.tolist(), strict=True)
    }
    members, other_kind = part["members"], part["other"]
    # all at once: one program is compiled, not one for each side
    judged = Encoded(*map(np.concatenate, zip(members, part["fresh"], other_kind, strict=True)))
    similar = _similarities(model, judged, view_key)
    begin("membership: the weakly supervised attack")
    learnt = repeat_weakly_supervised_attack(
        part["known"].features,
        np.concatenate([part["unlabeled members"].features, part["unlabeled"].features]),
        judged.features,
        key=attack_key,
        threshold_std=_THRESHOLD_STD,
        num_seeds=_ATTACK_SEEDS,
        min_count=max(8, half // 4),
    )
    begin("membership: judging the attacks")
    scores = {**similar, "WSA": np.asarray(learnt.seed_scores)}
    place = np.arange(len(judged.images))
    honest = _judge(scores, judged, place < half + 2 * count, half, report_keys[0])
    illusion = _judge(
        scores, judged, (place < half) | (place >= half + 2 * count), half, report_keys[1]
    )
    shown = [cards(side.images, side.captions) for side in (members, other_kind)]
    return Answer(
        "membership",
        section(honest, illusion, shown[0], shown[1], count),
        summary(honest, illusion),
        {"same_distribution": results(honest), "other_distribution": results(illusion)},
        {
            f"{where}/{f.name.replace(' ', '-')}": f.scores
            for where, found in (("same", honest), ("other", illusion))
            for f in (*found.attacks, *found.controls)
        }
        | {"same/is_member": honest.is_member, "other/is_member": illusion.is_member},
    )


def clip_config(vocab_size: int, context_length: int) -> CLIPConfig:
    """The demonstration's CLIP: one block in each tower."""
    stack = TransformerConfig(
        width=_WIDTH, layers=1, heads=2, mlp_width=2 * _WIDTH, activation="quick_gelu"
    )
    return CLIPConfig(
        embed_dim=_WIDTH,
        vision=VisionTransformerConfig(image_size=_SIZE, patch_size=8, transformer=stack),
        text=TextConfig(context_length=context_length, vocab_size=vocab_size, transformer=stack),
    )


def _image_features(model: TrainedCLIP, images: jax.Array) -> jax.Array:
    size = model.module.config.vision.image_size
    return model.encode_image(Preprocess(size=size, resize_to=size).normalise(images))


_image_features_compiled = jax.jit(_image_features)


def _encode(
    model: TrainedCLIP, blind: TrainedCLIP, images: np.ndarray, captions: Sequence[str]
) -> Encoded:
    tokens = scene_words()(captions)

    def both(clip: TrainedCLIP) -> tuple[np.ndarray, np.ndarray]:
        found = _image_features_compiled(clip, jax.numpy.asarray(images)), clip.encode_text(tokens)
        return np.asarray(found[0]), np.asarray(found[1])

    image, text = both(model)
    return Encoded(images, np.asarray(captions), image, text, np.concatenate(both(blind), axis=1))


def _similarities(model: TrainedCLIP, pairs: Encoded, key: jax.Array) -> dict[str, np.ndarray]:
    """Scores of CSA and AEA."""
    views = view_similarities(
        Partial(_image_features, model),
        pairs.images,
        pairs.text,
        key=key,
        transformations=_CHANGES,
        draws=_DRAWS,
        batch_size=25,
    )
    return {
        "CSA": np.asarray(cosine_similarity_attack(pairs.image, pairs.text)),
        "AEA": np.asarray(augmentation_score(views, _WEIGHT)),
    }


def _judge(
    scores: dict[str, np.ndarray],
    pairs: Encoded,
    chosen: np.ndarray,
    num_members: int,
    key: jax.Array,
) -> MembershipReport:
    """Judge the scores of some of the pairs, of which the first are members."""
    is_member = np.arange(chosen.sum()) < num_members
    return membership_report(
        {name: row[..., chosen] for name, row in scores.items()},
        is_member,
        key=key,
        controls={_UNTRAINED: feature_control(pairs.untrained[chosen], is_member, seed=0)},
        captions=pairs.captions[chosen].tolist(),
        num_resamples=1000,
    )
