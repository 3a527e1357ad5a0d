"""`jaxinf leakage`: which test examples are training examples, exactly, nearly, or relabelled?"""

from pathlib import Path
from typing import Annotated

import typer

from jaxinf.cli.devices import provenance, use_all_cores
from jaxinf.cli.leakage_choices import Compare, Influence, StatisticName, TableFormat
from jaxinf.cli.options import ImageSize, Progress, Report, ScoreStore
from jaxinf.cli.value_choices import Embedding


def leakage(
    train: Annotated[
        Path,
        typer.Argument(
            help="The training set: a .csv or .parquet table, an .npz archive, a .npy file of "
            "embeddings, or a folder with a subfolder of images per class. Or a Python file with "
            "a function influence(), as jaxinf influence takes it: then its queries are tested, "
            "by influence, and TEST is left out.",
            show_default=False,
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Argument(
            help="The test set, in the same form. It may be the same .npz file, if that has "
            "x_train and x_test.",
            show_default=False,
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            help="Examples known not to be trained on, in the same form: they calibrate the "
            "p-values. With a Python file, its influence() returns them as 'clean'.",
            show_default="training rows against the rest of the training set; by influence, the "
            "bulk of the queries",
        ),
    ] = None,
    fdr: Annotated[
        float,
        typer.Option(help="Of what is called a leak, the share that may be wrong on average."),
    ] = 0.05,
    compare: Annotated[
        Compare | None,
        typer.Option(
            help="distance: Euclidean, of pixels, columns or embeddings. shifted: the least over "
            "shifts of an image by a pixel. cosine: by angle. hash: perceptual hashes of images. "
            "bytes: equal or not.",
            show_default="distance",
        ),
    ] = None,
    method: Annotated[
        Influence | None,
        typer.Option(
            help="With a Python file: reference: relative to half of the clean queries, by "
            "forward passes alone; the others as in jaxinf influence.",
            show_default="reference where there are clean queries, else grad-cos",
        ),
    ] = None,
    statistic: Annotated[
        StatisticName | None,
        typer.Option(
            help="What is compared between test examples. ratio: how many times farther the next "
            "match is than the best. top: the best score alone. gap: how much it is above the "
            "next. contrast: the gap, against how far the next stands out from the crowd.",
            show_default="ratio for distances, gap for reference influence, contrast for other "
            "influence, else top",
        ),
    ] = None,
    rest: Annotated[
        int,
        typer.Option(
            help="Which match the best one is held against; where the training set holds an "
            "example r times, r + 1."
        ),
    ] = 2,
    absolute: Annotated[
        bool,
        typer.Option(
            "--absolute",
            help="Go by the size of influence whatever its sign: finds relabelled copies.",
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            help="Column (or array) of the class labels.",
            show_default="label, labels, y, target or class",
        ),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to compare by; give it again for more. Of an .npz archive: the array of "
            "the inputs.",
            show_default="all columns but label and those dropped",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Column to leave out, such as an id; give it again for more."),
    ] = None,
    size: ImageSize = None,
    embedding: Annotated[
        Embedding,
        typer.Option(help="How rows become numbers to compare, as in jaxinf value."),
    ] = Embedding.AUTO,
    store: ScoreStore = None,
    query_chunk: Annotated[int, typer.Option(help="Test examples scored together.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Training examples per step.")] = 1024,
    out: Annotated[Path, typer.Option(help="Folder for the leaks and report.html.")] = Path(
        "jaxinf-leakage"
    ),
    file_format: Annotated[
        TableFormat, typer.Option("--format", help="File of the leaks.")
    ] = TableFormat.CSV,
    seed: Annotated[int, typer.Option(help="Which training rows calibrate.")] = 0,
    report: Report = True,
    progress: Progress = True,
) -> None:
    """Find the test examples that a model was trained on, and which training example each one is.

    Writes leaks.csv (a row per test example: its best match, p- and q-value, whether it is called
    a leak) and report.html (the leaks beside their sources).
    """
    use_all_cores()
    from jaxinf.applications.leakage.find import check_fdr
    from jaxinf.cli.console import say, show_table
    from jaxinf.cli.leakage_findings import leak_sections, leaks_table, summary, write_leaks
    from jaxinf.cli.leakage_model import search_by_influence
    from jaxinf.cli.leakage_search import search_by_comparing
    from jaxinf.cli.leakage_shared import Asked
    from jaxinf.cli.rows import Wanted
    from jaxinf.errors import InputError
    from jaxinf.report import write_report

    check_fdr(fdr)
    by_model = train.suffix == ".py" or not (train.exists() or train.suffix)
    statistic = statistic or _usual(by_model, compare, method)
    settings = {"statistic": statistic.value, "rest": rest, "signed": not absolute}
    asked = Asked(fdr, settings, store, query_chunk, batch_size, seed, progress)
    if by_model:
        if test is not None or clean is not None or compare is not None:
            raise InputError(
                f"{train} brings its own queries and clean examples: leave TEST, --clean and "
                "--compare out, or give two sets of data"
            )
        found = search_by_influence(str(train), method, asked)
    else:
        if method is not None or absolute:
            raise InputError(
                "influence needs a model: give a Python file in place of TRAIN, or choose --compare"
            )
        if test is None:
            raise InputError(f"what is {train} to be compared with? Give the test set as well")
        wanted = Wanted(label, tuple(feature or ()), tuple(drop or ()), None, size)
        found = search_by_comparing(
            train, test, clean, compare or Compare.DISTANCE, wanted, embedding, asked
        )
    written = write_leaks(out, found, file_format.value)
    show_table(leaks_table(found, 10))
    say(summary(found))
    for warning in found.warnings:
        say(warning)
    say(f"Leaks: {written}")
    if report:
        made_by = {"train": train, "test": test, "clean": clean, "method": found.method}
        page = write_report(
            out / "report.html",
            "Which test examples were trained on?",
            leak_sections(found),
            provenance(made_by | settings | {"fdr": fdr, "seed": seed}),
            summary=summary(found),
        )
        say(f"Report: {page}")


def _usual(by_model: bool, compare: Compare | None, method: Influence | None) -> StatisticName:
    if by_model:
        compares = method in (None, Influence.REFERENCE)
        return StatisticName.GAP if compares else StatisticName.CONTRAST
    distances = (None, Compare.DISTANCE, Compare.SHIFTED)
    return StatisticName.RATIO if compare in distances else StatisticName.TOP
