"""`jaxinf memorisation`: which training examples does a model know by heart?"""

from pathlib import Path
from typing import Annotated

import typer

from jaxinf.cli.devices import provenance
from jaxinf.cli.memorisation_choices import Estimate
from jaxinf.cli.options import (
    DropColumns,
    EmbeddingAsInValue,
    FeatureColumns,
    ImageSize,
    LabelColumn,
    Progress,
    Report,
    TrainingSet,
    TrainLabels,
)
from jaxinf.cli.value_choices import Embedding


def memorisation(
    train: TrainingSet,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Test examples in the same form, for --retrain: which of them models get right "
            "because of one training example (pairs.parquet). A pair counts with an influence of "
            "0.15 or more, beyond 4 standard errors, of a training example memorised 0.25 or more. "
            "It may be the same .npz file, if that has x_test and y_test.",
            show_default="none",
        ),
    ] = None,
    label: LabelColumn = None,
    feature: FeatureColumns = None,
    drop: DropColumns = None,
    train_labels: TrainLabels = None,
    test_labels: Annotated[
        Path | None,
        typer.Option(help="The .npy file of the labels, where --test is a .npy file."),
    ] = None,
    size: ImageSize = None,
    embedding: EmbeddingAsInValue = Embedding.AUTO,
    estimate: Annotated[
        Estimate,
        typer.Option(
            help="What tells it cheaply. left-out: 1 - p of the label in models of half the set "
            "that did not see the example. seen-less-left-out: how much higher p is in those that "
            "did. early-loss: 1 - p in briefly trained models of the whole set; early-gradient, "
            "early-step, early-curvature: the example's influence on itself in those."
        ),
    ] = Estimate.LEFT_OUT,
    models: Annotated[
        int, typer.Option(help="Models of the estimate; halves come in pairs: an even number.")
    ] = 4,
    retrain: Annotated[
        int,
        typer.Option(
            help="Models of random subsets, for Feldman and Zhang's scores and their standard "
            "errors: some 100 tell the extremes, 1,000 the order. 0: the estimate alone."
        ),
    ] = 0,
    fraction: Annotated[
        float, typer.Option(help="Share of the examples in each subset of --retrain.")
    ] = 0.7,
    epochs: Annotated[
        int,
        typer.Option(
            help="Passes of each model over its examples: enough to fit them. The early-* "
            "estimates stop at a quarter of it."
        ),
    ] = 40,
    hidden: Annotated[int, typer.Option(help="Width of the network's hidden layer.")] = 128,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the models' answers: a killed run, started again in the same way, "
            "goes on where it stopped.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for scores.parquet, pairs.parquet and report.html.")
    ] = Path("jaxinf-memorisation"),
    seed: Annotated[int, typer.Option(help="Seed of subsets and training.")] = 0,
    report: Report = True,
    progress: Progress = True,
) -> None:
    """Say of every training example how far a network knows it by heart: higher is more.

    Memorised, in Feldman and Zhang's sense: models are right about it when they were trained on
    it, and not when it was left out. Such examples are rare, atypical, or mislabelled. The network
    is trained here, on the features; for a network of your own see docs/memorisation.md.

    Writes scores.parquet (a row per training row, in its order), with --test pairs.parquet (a row
    per pair of a training and a test example that counts, highest influence first), and report.html
    (the most memorised ones, how the scores spread, and the strongest pairs).
    """
    from jaxinf.cli.console import say, show_table, steps
    from jaxinf.cli.memorisation_findings import (
        memorisation_sections,
        memorised_table,
        write_scores,
    )
    from jaxinf.cli.memorisation_pair_findings import write_pairs
    from jaxinf.cli.memorisation_search import Asked, estimated, retrained
    from jaxinf.cli.rows import Wanted
    from jaxinf.report import write_report

    wanted = Wanted(label, tuple(feature or ()), tuple(drop or ()), None, size, train_labels)
    asked = Asked(estimate, models, retrain, fraction, epochs, hidden, store, seed)
    with steps(2, enabled=progress) as begin:
        found = estimated(train, test, wanted, test_labels, embedding, asked, begin)
    if retrain:
        found = retrained(found, progress)
    written = (write_scores(out, found),)
    if found.owed is not None:
        written += (write_pairs(out, found.rows, found.owed),)
    if report:
        settings = {
            "train": train,
            "test": test,
            "estimate": estimate.value,
            "models": models,
            "retrain": retrain,
            "fraction": fraction,
            "epochs": epochs,
            "hidden": hidden,
            "seed": seed,
        }
        page = write_report(
            out / "report.html",
            "Which training examples are known by heart?",
            memorisation_sections(found),
            provenance(settings),
            summary=found.summary,
        )
        written += (page,)
    listed = memorised_table(found, 5)
    show_table(listed, listed.caption)
    say(found.summary)
    if found.owed is not None:
        say(found.owed.summary)
    say(f"Features: {found.note}.")
    say(f"Wrote {', '.join(str(file) for file in written)}.")
