"""The chapters around the questions: what was done, what it cost, how far to trust it."""

from collections.abc import Sequence

import numpy as np

from jaxinf.cli.demonstration.answer import Answer
from jaxinf.cli.demonstration.cards import LEGEND, train_cards
from jaxinf.cli.demonstration.subject import Settings, Subject
from jaxinf.influence import Attribution
from jaxinf.report.sections import Column, Section, Strip, Table

_TRUST = ("nonlinearity", "roundoff", "unresolved_step", "step_norm", "loss_before")


def setup_section(subject: Subject, settings: Settings) -> Section:
    """What was trained on what, and which faults were planted."""
    count, wrong = len(subject.is_wrong), int(subject.is_wrong.sum())
    shown = np.flatnonzero(subject.is_wrong)[:8]
    cards = tuple(
        card.__class__(card.lines[:2], card.image, card.mark)
        for card in train_cards(subject, shown.tolist(), [0.0] * len(shown))
    )
    rows = (
        ("training digits, 8×8 pixels", f"{count:,}"),
        ("of them with a wrong label", f"{wrong:,} ({wrong / count:.0%})"),
        ("of them copied into the test set", f"{len(subject.source):,}"),
        ("trusted held-out digits, to judge labels by", f"{len(subject.trusted['y']):,}"),
        ("network", f"CNN with BatchNorm, {settings.epochs} epochs of SGD with momentum"),
        (
            "accuracy on the training labels as given",
            f"{subject.figures['training_accuracy_as_labelled']:.1%}",
        ),
        (
            "accuracy on the true training labels",
            f"{subject.figures['training_accuracy_true_labels']:.1%}",
        ),
        ("accuracy on clean test digits", f"{subject.figures['test_accuracy']:.1%}"),
    )
    return Section(
        title="What was done",
        text=(
            "Real data sets have faults that nobody knows of. Here they were planted, so that "
            "every answer below can be checked: some training labels were replaced by wrong ones, "
            "and some training digits were copied into the test set. A small network was then "
            "trained as if nothing had happened.",
            "Influence asks which training examples are behind a prediction. Forward-INF answers "
            "it in the mirror: take one training step on the query, and see whose loss moves. An "
            "example whose loss falls with the query's is a proponent (positive score), one whose "
            "loss rises is an opponent (negative score). The work on the training set is forward "
            "passes only.",
        ),
        tables=(Table((Column("set-up"), Column("this run")), rows),),
        strips=(Strip(((f"The first {len(cards)} planted wrong labels", cards),)),),
        legend=LEGEND[2:],
    )


def cost_section(answers: Sequence[Answer]) -> Section:
    """Each method's plan, and its diagnostics where it has any."""
    runs = {label: run for answer in answers for label, run in answer.runs.items()}
    plans = tuple(
        (
            label,
            run.plan.num_queries,
            run.plan.forward_passes,
            run.plan.compile_seconds,
            run.plan.run_seconds,
            run.plan.rows_scored / max(run.plan.run_seconds, 1e-9),
            None if run.plan.temp_bytes is None else run.plan.temp_bytes / 2**20,
        )
        for label, run in runs.items()
    )
    first = next(iter(runs.values())).plan
    return Section(
        title="What it cost, and how far to trust it",
        text=(
            f"Every method scored the same training set in batches of {first.batch_size} over "
            f"{first.num_devices} device(s). Forward passes are predicted per training example, "
            "for all queries together.",
            "A finite step has two ways to go wrong. Nonlinearity: how far its scores are from "
            "their first-order limit, as a share of that limit; large values say that the step is "
            "no longer small, which is not always bad. Round-off: the share of the scores that "
            "moving every parameter by one unit in the last place already makes; above 10 % the "
            "scores are noise, and the JVP, which takes no step, should be used.",
        ),
        tables=(
            Table(
                (
                    Column("method"),
                    Column("queries", ","),
                    Column("forward passes", ".0f"),
                    Column("compiling, s", ".1f"),
                    Column("scoring, s", ".2f"),
                    Column("examples/s", ",.0f"),
                    Column("scratch, MiB", ",.0f"),
                ),
                plans,
                "The plan of each method on the leaked queries, and what it then took.",
            ),
            _trust_table(runs),
        ),
    )


def _trust_table(runs: dict[str, Attribution]) -> Table:
    names = [name for name in _TRUST if any(name in run.diagnostics for run in runs.values())]
    rows = tuple(
        (label, *(_median(run, name) for name in names))
        for label, run in runs.items()
        if run.diagnostics
    )
    headings = {
        "nonlinearity": "nonlinearity",
        "roundoff": "round-off",
        "unresolved_step": "step lost to rounding",
        "step_norm": "length of the step",
        "loss_before": "query's loss, nats",
    }
    return Table(
        (Column("method"), *(Column(headings[name], ".2g") for name in names)),
        rows,
        "Diagnostics: medians over the queries. A dash: the method has no such figure.",
    )


def _median(run: Attribution, name: str) -> float | None:
    values = run.diagnostics.get(name)
    return None if values is None else float(np.median(values))
