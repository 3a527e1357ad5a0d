"""`jaxinf mislabelled`: which training labels are wrong, and what might they be?"""

from pathlib import Path
from typing import Annotated

import typer

from jaxinf.cli.devices import provenance
from jaxinf.cli.mislabelled_choices import Classifier, Suspicion
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
    ValidLabels,
)
from jaxinf.cli.value_choices import Embedding


def mislabelled(
    train: TrainingSet,
    valid: Annotated[
        Path | None,
        typer.Argument(
            help="A small set whose labels you trust, in the same form, for the trusted-* "
            "methods. It may be the same .npz file, if that has x_test and y_test.",
            show_default=False,
        ),
    ] = None,
    label: LabelColumn = None,
    feature: FeatureColumns = None,
    drop: DropColumns = None,
    train_labels: TrainLabels = None,
    valid_labels: ValidLabels = None,
    size: ImageSize = None,
    embedding: EmbeddingAsInValue = Embedding.AUTO,
    method: Annotated[
        Suspicion,
        typer.Option(
            help="What makes a label suspect. out-of-fold-*: models that did not see the example "
            "disagree. early-*, loss: it is learnt late, or not at all. self-*, gradient-norm: it "
            "is learnt by heart. trusted-*: it works against the trusted set."
        ),
    ] = Suspicion.OUT_OF_FOLD_MARGIN,
    model: Annotated[
        Classifier,
        typer.Option(
            help="What is trained, on the features: logistic regression, to its minimum; or a "
            "network with one hidden layer. Better features (embeddings of a pretrained network) "
            "do more than a better model."
        ),
    ] = Classifier.LOGISTIC,
    folds: Annotated[
        int, typer.Option(help="Models that each leave out an equal part of every class.")
    ] = 5,
    budget: Annotated[
        str | None,
        typer.Option(
            help="How many rows to flag: a number, a share such as 0.1, or an estimate: "
            "confident-joint (noise that depends on the class alone) or mixture (two heaps of "
            "scores).",
            show_default="confident-joint",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="Column (or array, or .npy file) that marks wrong labels by true or 1, where "
            "they are known: the report then shows how well they are found.",
            show_default="unknown",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder for trained networks: a killed run, started again in the same way, goes "
            "on where it stopped. Logistic regression takes seconds, and is fitted again.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for suspects.parquet, the cleaned list and report.html.")
    ] = Path("jaxinf-mislabelled"),
    seed: Annotated[int, typer.Option(help="Seed of folds and training.")] = 0,
    report: Report = True,
    progress: Progress = True,
) -> None:
    """Say how suspect every training label is, and what it might be: higher is more suspect.

    Writes suspects.parquet (a row per training row, in its order), suggested.csv (the flagged rows
    with another label for them), cleaned.csv or cleaned.parquet (the rows that are not flagged)
    and report.html (the worst rows, and how many labels are wrong).
    """
    from jaxinf.cli.console import say, show_table, steps
    from jaxinf.cli.mislabelled_findings import (
        mislabelled_sections,
        suspects_table,
        write_suspects,
    )
    from jaxinf.cli.mislabelled_search import Asked, read_budget, search
    from jaxinf.cli.rows import Wanted
    from jaxinf.report import write_report

    wanted = Wanted(label, tuple(feature or ()), tuple(drop or ()), truth, size, train_labels)
    asked = Asked(method.value, model, folds, read_budget(budget), store, seed)
    with steps(6 if report else 5, enabled=progress) as begin:
        found = search(train, valid, wanted, valid_labels, embedding, asked, begin)
        begin("writing the results")
        written = write_suspects(out, found)
        if report:
            begin("writing the report")
            settings = {
                "train": train,
                "valid": valid,
                "method": method.value,
                "model": model.value,
                "folds": folds,
                "budget": budget,
                "seed": seed,
            }
            page = write_report(
                out / "report.html",
                "Which training labels are wrong?",
                mislabelled_sections(found),
                provenance(settings),
                summary=found.summary,
            )
            written += (page,)
    listed = suspects_table(found, 5)
    show_table(listed, listed.caption)
    say(found.summary)
    say(f"Features: {found.note}.")
    say(f"Wrote {', '.join(str(file) for file in written)}.")
