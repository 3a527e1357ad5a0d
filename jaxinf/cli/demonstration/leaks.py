"""Which test examples are copies of training examples?"""

from collections.abc import Sequence

import numpy as np

from jaxinf.cli.demonstration.answer import Answer, Begin
from jaxinf.cli.demonstration.cards import LEGEND, query_card, train_cards
from jaxinf.cli.demonstration.contenders import NEIGHBOURS, Contender
from jaxinf.cli.demonstration.subject import Subject
from jaxinf.evaluation import hit_rate, ranks
from jaxinf.report.figures import line_chart
from jaxinf.report.sections import Column, Figure, Section, Strip, Table

_SHOWN = 3


def find_leaks(subject: Subject, contenders: Sequence[Contender], begin: Begin) -> Answer:
    """Rank the training set for every leaked test example: is its original on top?"""
    runs, scores, found = {}, {}, {}
    for contender in (*contenders, *NEIGHBOURS):
        begin(f"leaks: {contender.label}")
        run = contender.run(subject, subject.leaked)
        runs[contender], scores[contender] = run, np.asarray(run.scores)
        found[contender] = {
            "top_1": hit_rate(scores[contender], subject.source, 1),
            "top_5": hit_rate(scores[contender], subject.source, 5),
        }
    best = max(contenders, key=lambda c: (found[c]["top_1"], found[c]["top_5"]))
    trivial = max(NEIGHBOURS, key=lambda c: found[c]["top_1"])
    table = Table(
        (
            Column("method"),
            Column("kind"),
            Column("top-1 hit rate", ".0%", best=True),
            Column("top-5 hit rate", ".0%", best=True),
        ),
        tuple(
            (
                c.label,
                "baseline" if c in NEIGHBOURS else "influence",
                found[c]["top_1"],
                found[c]["top_5"],
            )
            for c in runs
        ),
        f"Of {len(subject.source)} leaked test examples, the share whose original is the training "
        "example with the highest score (top-1), or among the five highest (top-5).",
    )
    count = len(subject.source)
    summary = (
        f"Of {count} leaked test examples, {best.label} puts the original first for "
        f"{found[best]['top_1']:.0%}; {trivial.label}, without any influence, for "
        f"{found[trivial]['top_1']:.0%}."
    )
    section = Section(
        title="Which test examples leaked from training?",
        text=(
            "A test example that the model was trained on says nothing about how well the model "
            "generalises. If influence works, the training example that most lowers the loss of a "
            "leaked test example is the original it was copied from.",
            summary,
            "Exact copies are the easiest case there is: hashing finds them too. The baselines "
            "stand here so that no influence figure is taken for more than it is. What the table "
            "does show is how much dividing out each training example's own loss or gradient is "
            "worth: without it, a few examples with large losses win for every query.",
            *(
                ()
                if best is contenders[0]
                else (
                    f"The first two strips below ask about the same query: {contenders[0].label} "
                    f"as it is, and {best.label}.",
                )
            ),
        ),
        tables=(table,),
        figures=(
            Figure(
                line_chart(
                    {c.label: _hits(found_by, subject.source) for c, found_by in scores.items()},
                    xlabel="how many of the highest-scored training examples are looked at",
                    ylabel="originals found",
                    baselines={c.label for c in NEIGHBOURS},
                    log_x=True,
                ),
                "Originals found among the highest-scored training examples. The further up and "
                "left, the better.",
            ),
        ),
        strips=tuple(_strip(subject, c, scores[c], i) for c, i in _shown(best, contenders, count)),
        legend=LEGEND,
    )
    return Answer(
        "leaks",
        section,
        summary,
        {c.name: found[c] for c in runs},
        {"source": subject.source} | {c.name: found_by for c, found_by in scores.items()},
        {c.label: run for c, run in runs.items()},
    )


def _hits(scores: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the sources found among the first k, for every k."""
    num_examples = scores.shape[1]
    at = np.bincount(ranks(scores, source), minlength=num_examples + 1)[1:]
    return np.arange(1, num_examples + 1), np.cumsum(at) / len(source)


def _shown(
    best: Contender, contenders: Sequence[Contender], count: int
) -> list[tuple[Contender, int]]:
    """A few queries by the best method, and the first also by the plainest for comparison."""
    shown = [(best, query) for query in range(min(_SHOWN, count))]
    return shown if best is contenders[0] else [(contenders[0], 0), *shown]


def _strip(subject: Subject, method: Contender, scores: np.ndarray, query: int) -> Strip:
    order = np.argsort(-scores[query], kind="stable")
    source, label = int(subject.source[query]), int(subject.leaked["y"][query])
    true = int(subject.true_labels[source])
    lines = [f"labelled {label}"] + ([f"truly {true}"] if true != label else [])

    def cards(rows: np.ndarray):
        return train_cards(subject, rows.tolist(), scores[query, rows].tolist(), source)

    return Strip(
        (
            (f"Proponents by {method.label}", cards(order[:5])),
            ("Opponents", cards(order[::-1][:3])),
        ),
        query_card(subject.leaked["x"][query], *lines, "leaked test example"),
    )
