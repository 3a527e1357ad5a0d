"""`jaxinf value`: what is each training example worth, judged by a trusted validation set?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxinf.cli.devices import provenance
from jaxinf.cli.options import (
    DropColumns,
    FeatureColumns,
    ImageSize,
    LabelColumn,
    Progress,
    Report,
    TrainingSet,
    TrainLabels,
    ValidLabels,
)
from jaxinf.cli.value_choices import Embedding, Valuer


def value(
    train: TrainingSet,
    valid: Annotated[
        Path,
        typer.Argument(
            help="A small validation set that you trust, in the same form. It may be the same "
            ".npz file, if that has x_train, y_train, x_test and y_test.",
            show_default=False,
        ),
    ],
    label: LabelColumn = None,
    feature: FeatureColumns = None,
    drop: DropColumns = None,
    train_labels: TrainLabels = None,
    valid_labels: ValidLabels = None,
    size: ImageSize = None,
    embedding: Annotated[
        Embedding,
        typer.Option(
            help="How rows become features. standardise: every column to mean 0 and deviation 1 "
            "by the training set. raw: as they are, stored bytes scaled to [0, 1]. auto: "
            "standardise for tables (unscaled columns make any distance meaningless), raw for "
            "images and embeddings."
        ),
    ] = Embedding.AUTO,
    method: Annotated[
        Valuer,
        typer.Option(
            help="lava: class-wise optimal transport. nearest: distance to the nearest "
            "validation example under the same cost. The others are baselines; data-oob, "
            "data-shapley, beta-shapley, banzhaf and leave-one-out train many small models."
        ),
    ] = Valuer.LAVA,
    solver: Annotated[
        str | None,
        typer.Option(
            help="How lava solves: annealed (soft, finds bad rows), balanced (tells best what "
            "removing a row does to the distance), semi-relaxed, one-pass, or reference (the "
            "released code's schedule, step for step).",
            show_default="annealed",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Strength of the entropic regularisation, a share of the mean cost (lava, sava).",
            show_default="0.01; sava 0.05",
        ),
    ] = None,
    label_epsilon: Annotated[
        float | None,
        typer.Option(
            help="The same in the distances between classes (lava, nearest, sava).",
            show_default="0.05",
        ),
    ] = None,
    label_weight: Annotated[
        float | None,
        typer.Option(
            help="Weight of the distance between classes beside that between features (lava, "
            "nearest, sava).",
            show_default="1.0",
        ),
    ] = None,
    checks: Annotated[
        int | None,
        typer.Option(
            help="Rows, spread from the best to the worst, on which the certificate really moves "
            "mass and solves again (lava).",
            show_default="3",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="Column (or array, or .npy file) that marks faulty training rows by true or 1, "
            "where they are known: the report then shows how well low values find them.",
            show_default="unknown",
        ),
    ] = None,
    keep: Annotated[
        float,
        typer.Option(help="Share of the training rows, those of highest value, that is kept."),
    ] = 0.9,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Keep equally many rows of each class, if possible.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for values.parquet, the cleaned list and report.html.")
    ] = Path("jaxinf-value"),
    seed: Annotated[int, typer.Option(help="Seed of the methods that draw.")] = 0,
    report: Report = True,
    progress: Progress = True,
) -> None:
    """Give every training example a value, before any training: higher is more worth having.

    Writes values.parquet (a row per training row, in its order), cleaned.csv or cleaned.parquet
    (the rows kept) and report.html (the worst and best examples, how the classes lie, and how far
    to trust the numbers).
    """
    from jaxinf.cli.console import say, show_table, steps
    from jaxinf.cli.features import put_together
    from jaxinf.cli.rows import Wanted
    from jaxinf.cli.tables import TABLES, read_rows
    from jaxinf.cli.valuators import run_valuator
    from jaxinf.cli.value_outputs import (
        check_share,
        choose_kept,
        summary_table,
        write_cleaned,
        write_values,
    )

    check_share(keep)
    if checks is None and method is Valuer.LAVA:
        checks = 3
    asked = {
        "solver": solver,
        "epsilon": epsilon,
        "label_epsilon": label_epsilon,
        "label_weight": label_weight,
        "num_checks": checks,
    }
    options = {name: chosen for name, chosen in asked.items() if chosen is not None}
    wanted = Wanted(label, tuple(feature or ()), tuple(drop or ()), truth, size, train_labels)
    with steps(4 if report else 3, enabled=progress) as begin:
        begin(f"reading {train.name}")
        rows = read_rows(train, wanted)
        begin(f"reading {valid.name}")
        # the columns of one table are those of the other
        is_table = rows.columns is not None and valid.suffix.lower() in TABLES
        same = tuple(rows.columns or ()) if is_table else wanted.features
        trusted = read_rows(valid, Wanted(label, same, (), None, size, valid_labels, side="valid"))
        sets = put_together(rows, trusted, embedding)
        begin(f"valuing {len(rows):,} rows by {method.value}")
        valued = run_valuator(method, sets, options, seed=seed)
        kept = choose_kept(valued.values, rows.labels if balanced else None, keep)
        written = write_values(out, rows, valued, kept), write_cleaned(out, rows, kept)
        if report:
            begin("writing the report")
            settings = {"train": train, "valid": valid, "method": method.value, "keep": keep}
            written += (_write(out, valued, rows, sets, kept, settings | options | {"seed": seed}),)
    lowest = summary_table(valued, rows)
    show_table(lowest, lowest.caption)
    say(f"Features: {sets.note}.")
    for warning in valued.warnings:
        say(warning)
    if valued.converged is False and not valued.soft:
        say("The solver stopped before it reached its accuracy: see the report's last chapter.")
    say(f"Wrote {', '.join(str(file) for file in written)}.")


def _write(
    out: Path, valued: Any, rows: Any, sets: Any, kept: Any, settings: dict[str, Any]
) -> Path:
    from jaxinf.cli import valued as chapters
    from jaxinf.report import write_report

    sections = [chapters.values_section(valued, rows, sets, kept)]
    if rows.is_bad is not None:
        sections.append(chapters.detection_section(valued, rows.is_bad)[0])
    sections += [
        chapters.examples_section(valued, rows),
        chapters.label_section(valued, sets.names),
        chapters.certificate_section(valued),
    ]
    return write_report(
        out / "report.html",
        "What is each training example worth?",
        [section for section in sections if section is not None],
        provenance(settings),
        summary=f"{len(rows):,} training rows of {rows.name}, valued by {valued.method}.",
    )
