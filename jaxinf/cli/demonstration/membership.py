"""Was this pair in a model's training set? And when is the answer worth nothing?"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.contenders import Contender
from jaxinf.cli.demonstration.subject import Subject
from jaxinf.cli.membership_sections import (
    differences_table,
    figures_table,
    roc_figure,
    score_figure,
    sentence,
)
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
from jaxinf.report.figures import image_png
from jaxinf.report.sections import Example, Section, Strip

_SIZE, _WIDTH, _MOST = 32, 64, 500
_EPOCHS, _BATCH, _RATE = 30, 64, 2e-3
# fixed beforehand, on other draws than any that is shown
_CHANGES, _DRAWS = (RandomRotation(15.0), RandomHorizontalFlip(probability=1.0)), 2
_WEIGHT, _THRESHOLD_STD, _ATTACK_SEEDS = 0.1, 0.5, 4
_UNTRAINED = "untrained encoder"
_SHOWN = 6


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
    return Answer(
        "membership",
        _section(honest, illusion, members, other_kind, count),
        _summary(honest, illusion),
        {"same_distribution": _results(honest), "other_distribution": _results(illusion)},
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


def _summary(honest: MembershipReport, illusion: MembershipReport) -> str:
    return (
        f"One distribution: {honest.verdict.text}. The same members against pairs of another "
        f"kind: {illusion.verdict.text}."
    )


def _section(
    honest: MembershipReport,
    illusion: MembershipReport,
    members: Encoded,
    other: Encoded,
    count: int,
) -> Section:
    csa = honest["CSA"].auc.estimate, illusion["CSA"].auc.estimate
    return Section(
        title="Was this pair in the training set?",
        text=(
            f"A small CLIP was trained on {count:,} pairs of an image, a digit in a coloured "
            "scene, and its caption, which ends in a word of no meaning. An image and a caption "
            "that were trained on together should fit each other better than a pair that the "
            "model never saw (CSA), lose more of their fit when the image is changed (AEA), and "
            "look like other pairs of high fit to a classifier (WSA).",
            "First, members and non-members are independent draws from one distribution, so that "
            "nothing but the training tells them apart, and blind controls, which never look at "
            f"the model, are at chance. {sentence(honest.verdict.text)}",
            "Then the illusion. The same members are set against pairs of another kind, in which "
            "what is common here is rare there: as when members come from one corpus of the web "
            "and non-members from another. The attacks still look like attacks "
            f"(CSA {csa[0]:.3f} before, {csa[1]:.3f} now), but whoever reads the captions alone "
            f"tells the sets apart better. {sentence(illusion.verdict.text)}",
            *map(sentence, illusion.cautions),
        ),
        tables=(figures_table(honest), differences_table(honest), figures_table(illusion)),
        figures=(
            roc_figure(honest, "One distribution. "),
            roc_figure(illusion, "Another distribution. "),
            score_figure(honest["CSA"], honest.is_member),
            score_figure(illusion["CSA"], illusion.is_member, "pairs of another kind"),
        ),
        strips=(
            Strip(
                (
                    ("Members", _cards(members)),
                    ("Pairs of another kind", _cards(other)),
                )
            ),
        ),
    )


def _cards(side: Encoded) -> tuple[Example, ...]:
    return tuple(
        Example((str(caption),), image_png(image))
        for image, caption in zip(side.images[:_SHOWN], side.captions[:_SHOWN], strict=True)
    )


def _results(found: MembershipReport) -> dict[str, object]:
    figures = {
        f.name: {
            "auc": f.auc.estimate,
            "auc_interval": [f.auc.low, f.auc.high],
            "tpr": {str(rate): None if at is None else at.estimate for rate, at in f.tpr.items()},
        }
        for f in (*found.attacks, *found.controls)
    }
    return {**figures, "evidence": found.verdict.evidence, "verdict": found.verdict.text}
