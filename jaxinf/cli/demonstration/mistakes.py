"""Why does the model get these test examples wrong?"""

from collections.abc import Sequence

import numpy as np

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.cards import LEGEND, query_card, train_cards
from jaxinf.cli.demonstration.contenders import Contender
from jaxinf.cli.demonstration.subject import Subject
from jaxinf.report.sections import Section, Strip

_SHOWN = 4


def explain_mistakes(
    subject: Subject, contenders: Sequence[Contender], begin: Begin
) -> Answer | None:
    """Show what pulls the model towards and away from the truth; None when it makes no mistake."""
    predicted = subject.predict(subject.ordinary["x"])
    wrong = np.flatnonzero(predicted != subject.ordinary["y"])[:_SHOWN]
    signed = [c for c in contenders if c.signed]
    if not wrong.size or not signed:
        return None
    method = next((c for c in signed if c.name == "grad-cos"), signed[-1])
    begin(f"mistakes: {method.label}")
    queries = {key: value[wrong] for key, value in subject.ordinary.items()}
    run = method.run(subject, queries, diagnostics=False)
    (good, gains), (bad, losses) = run.proponents(3), run.opponents(5)
    as_predicted = subject.train["y"][bad] == predicted[wrong][:, None]
    share = float(as_predicted.mean())
    summary = (
        f"Of the strongest opponents of {len(wrong)} mistakes, {share:.0%} carry the label that "
        "the model wrongly gives."
    )
    strips = tuple(
        Strip(
            (
                ("Opponents: pull away from the truth", train_cards(subject, *pull)),
                ("Proponents: pull towards it", train_cards(subject, *push)),
            ),
            query_card(image, f"truly {label}", f"taken for {guess}", "test example"),
        )
        for image, label, guess, pull, push in zip(
            queries["x"],
            queries["y"],
            predicted[wrong],
            zip(bad.tolist(), losses.tolist(), strict=True),
            zip(good.tolist(), gains.tolist(), strict=True),
            strict=True,
        )
    )
    section = Section(
        title="Why does the model get these wrong?",
        text=(
            "Ordinary test examples that the model mistakes for another digit. Opponents are the "
            "training examples that raise the loss of the right answer: what the model learnt "
            f"from them speaks for the wrong one. Scores are by {method.label}.",
            summary,
        ),
        strips=strips,
        legend=(LEGEND[0], LEGEND[2]),
    )
    return Answer(
        "mistakes",
        section,
        summary,
        {"method": method.name, "opponents_labelled_as_predicted": share},
        {"rows": wrong, "predicted": predicted[wrong], "scores": np.asarray(run.scores)},
    )
