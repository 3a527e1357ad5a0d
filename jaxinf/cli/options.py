"""Options that several commands have, said once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from jaxinf.cli.value_choices import Embedding

TrainingSet: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="The training set: a .csv or .parquet table, an .npz archive with inputs and "
        "labels, a .npy file of embeddings, or a folder with a subfolder of images per class.",
        show_default=False,
    ),
]
EmbeddingAsInValue: TypeAlias = Annotated[
    Embedding, typer.Option(help="How rows become features, as in jaxinf value.")
]
LabelColumn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Column (or array) of the class labels, text or integers.",
        show_default="label, labels, y, target or class",
    ),
]
FeatureColumns: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that is a feature; give it again for more. Of an .npz archive: the array "
        "of the inputs.",
        show_default="all columns but label, truth and those dropped",
    ),
]
DropColumns: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Column that is no feature, such as an id; give it again for more."),
]
TrainLabels: TypeAlias = Annotated[
    Path | None, typer.Option(help="The .npy file of the labels, where TRAIN is a .npy file.")
]
ValidLabels: TypeAlias = Annotated[
    Path | None, typer.Option(help="The .npy file of the labels, where VALID is a .npy file.")
]
ImageSize: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Side in pixels to which images are resized.", show_default="as stored"),
]
ScoreStore: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder for scores as they are made: a killed run, started again in the same "
        "way, goes on where it stopped.",
        show_default="none",
    ),
]
ReportBeside: TypeAlias = Annotated[bool, typer.Option(help="Write report.html beside the scores.")]
Report: TypeAlias = Annotated[bool, typer.Option(help="Write report.html.")]
Progress: TypeAlias = Annotated[bool, typer.Option(help="Show a progress bar on stderr.")]
