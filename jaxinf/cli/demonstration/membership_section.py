"""The membership question's part of the demonstration's report, in words, tables and figures."""

import numpy as np

from jaxinf.cli.membership_sections import (
    differences_table,
    figures_table,
    roc_figure,
    score_figure,
    sentence,
)
from jaxinf.membership import MembershipReport
from jaxinf.report.figures import image_png
from jaxinf.report.sections import Example, Section, Strip

_SHOWN = 6


def summary(honest: MembershipReport, illusion: MembershipReport) -> str:
    """Both verdicts in one line."""
    return (
        f"One distribution: {honest.verdict.text}. The same members against pairs of another "
        f"kind: {illusion.verdict.text}."
    )


def section(
    honest: MembershipReport,
    illusion: MembershipReport,
    members: tuple[Example, ...],
    other: tuple[Example, ...],
    count: int,
) -> Section:
    """The question's part of the report."""
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
        tables=(
            figures_table(honest, "One distribution. "),
            differences_table(honest),
            figures_table(illusion, "Another distribution. "),
        ),
        figures=(
            roc_figure(honest, "One distribution. "),
            roc_figure(illusion, "Another distribution. "),
            score_figure(honest["CSA"], honest.is_member),
            score_figure(illusion["CSA"], illusion.is_member, "pairs of another kind"),
        ),
        strips=(
            Strip(
                (
                    ("Members", members),
                    ("Pairs of another kind", other),
                )
            ),
        ),
    )


def cards(images: np.ndarray, captions: np.ndarray) -> tuple[Example, ...]:
    """The first few pairs, to be shown."""
    return tuple(
        Example((str(caption),), image_png(image))
        for image, caption in zip(images[:_SHOWN], captions[:_SHOWN], strict=True)
    )


def results(found: MembershipReport) -> dict[str, object]:
    """What results.json keeps of a judgement."""
    figures = {
        f.name: {
            "auc": f.auc.estimate,
            "auc_interval": [f.auc.low, f.auc.high],
            "tpr": {str(rate): None if at is None else at.estimate for rate, at in f.tpr.items()},
        }
        for f in (*found.attacks, *found.controls)
    }
    return {**figures, "evidence": found.verdict.evidence, "verdict": found.verdict.text}
