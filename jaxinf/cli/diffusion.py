"""`jaxinf diffusion`: which training images are behind these generated images?"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxinf.cli.devices import provenance, use_all_cores
from jaxinf.cli.methods import FileFormat, Method, Normalise
from jaxinf.cli.options import Progress, ReportBeside, ScoreStore

_MIRRORED, _FALL = "mirrored-tuning", "loss-fall"
DiffusionMethod = StrEnum(
    "DiffusionMethod",
    {"MIRRORED_TUNING": _MIRRORED, "LOSS_FALL": _FALL}
    | {method.name: method.value for method in Method if method is not Method.RELEASED},
)


def diffusion(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of an EDM that jaxinf.models.diffusion.save_edm wrote. Or a Python file "
            "(or dotted module) with a function influence(), as jaxinf influence takes it, whose "
            "loss is a denoising loss and whose queries are generated images; then TRAIN and "
            "GENERATED are left out.",
            show_default=False,
        ),
    ],
    train: Annotated[
        Path | None,
        typer.Argument(
            help="The training images: an .npz archive with x_train and y_train (or x and y), or "
            "a folder with a subfolder of images per class.",
            show_default=False,
        ),
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Argument(
            help="The generated images, in the same form, with the classes that they were "
            "generated for.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        DiffusionMethod,
        typer.Option(
            help="For a model that was fine-tuned, with --before: loss-fall, the share by which "
            "every training image's loss has fallen, whatever the generated image (try it first); "
            "mirrored-tuning, a short tuning on the generated image, and the share by which every "
            "training image's loss falls. For any model: forward-inf-jvp: how the loss of every "
            "training image changes along a step on the generated one; forward-inf: the step "
            "itself; grad-dot, grad-cos: product and cosine of gradients."
        ),
    ] = DiffusionMethod(Method.FORWARD_INF_JVP),
    before: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the same model from before it was fine-tuned. The scores of each "
            "generated image are then less those of the image that these weights make from the "
            "same noise.",
            show_default=False,
        ),
    ] = None,
    noise_seed: Annotated[
        int,
        typer.Option(
            help="With --before: the seed of the key that jaxinf.models.diffusion.sample made the "
            "generated images with. From another noise the contrast is with another image."
        ),
    ] = 0,
    normalise: Annotated[
        Normalise | None,
        typer.Option(
            help="Divide each training image's scores by its loss or its gradient's norm, so that "
            "images that are hard to denoise do not win for every query.",
            show_default="neither",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Size of the steps on the generated image.",
            show_default="0.01; mirrored-tuning: 0.001, by Adam",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="How many steps are taken on each image.", show_default="1; mirrored-tuning: 10"
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Noise levels and noises that every loss is the mean of, the same for all images."
        ),
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of these draws.")] = 0,
    p_mean: Annotated[
        float | None,
        typer.Option(
            help="Mean of the logarithms of these noise levels: lower looks at finer detail.",
            show_default="-1.2, that of training",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels to which images in folders are resized.", show_default="as stored"
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(help="Training images per step, each of them seen once per draw."),
    ] = 64,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Keep only that many of the highest and of the lowest scores per image.",
            show_default="all scores",
        ),
    ] = None,
    store: ScoreStore = None,
    out: Annotated[Path, typer.Option(help="Folder for the scores and report.html.")] = Path(
        "jaxinf-diffusion"
    ),
    file_format: Annotated[
        FileFormat,
        typer.Option("--format", help="File of the scores: numpy's archive, or a parquet table."),
    ] = FileFormat.PARQUET,
    report: ReportBeside = True,
    progress: Progress = True,
) -> None:
    """Score training images by their influence on generated images.

    Positive scores are proponents: training on the image lowers the denoising loss of the
    generated one.
    """
    use_all_cores()
    from jaxinf import attribute
    from jaxinf.applications.diffusion import contrast_with
    from jaxinf.cli.console import say, show_table
    from jaxinf.cli.diffusion_findings import contrast_section, score_section
    from jaxinf.cli.diffusion_inputs import (
        from_contract,
        from_files,
        images_before,
        is_contract,
        weights_before,
    )
    from jaxinf.cli.findings import findings_sections, top_table
    from jaxinf.cli.outputs import write_scores
    from jaxinf.errors import InputError
    from jaxinf.report import write_report

    if is_contract(model):
        if train is not None or generated is not None:
            raise InputError(f"{model} brings its own images: leave TRAIN and GENERATED out")
        if p_mean is not None:
            raise InputError(f"{model} brings its own loss: leave --p-mean out, and set it there")
        if before is not None or method == _FALL:
            raise InputError(
                f"{model} is a function: --before and {_FALL} need folders of an EDM. In Python, "
                "loss_fall and contrast_with of jaxinf.applications.diffusion take any model"
            )
        found_in = from_contract(model)
    else:
        if train is None or generated is None:
            raise InputError("give the training images and the generated images after the model")
        read = {"size": size, "draws": draws, "seed": seed, "p_mean": p_mean}
        found_in = from_files(Path(model), train, generated, **read)
    options = {"normalise": normalise, "learning_rate": learning_rate, "steps": steps}
    given = {name: value for name, value in options.items() if value is not None}
    old = None if before is None else weights_before(Path(model), before)
    attributor = found_in.attributor or _build(method, found_in.loss_fn, given, old)
    plain = None
    if before is not None and method != _FALL:
        plain = images_before(before, found_in.queries, noise_seed)
        attributor = contrast_with(attributor, plain)
    found = attribute(
        attributor,
        found_in.params,
        found_in.queries,
        found_in.train,
        batch_size=batch_size,
        top_k=top_k,
        store=store,
        progress=progress,
    )
    written = write_scores(out, found, file_format)
    say(str(found.plan))
    show_table(top_table(found))
    say(f"Scores: {written}")
    if report:
        settings = {"model": model, "method": attributor.name, "draws": draws, "seed": seed}
        files = {"train": train, "generated": generated, "batch_size": batch_size}
        files["p_mean"] = p_mean
        files |= {} if before is None else {"before": before, "noise_seed": noise_seed}
        settings |= {name: value for name, value in (files | given).items() if value is not None}
        page = write_report(
            out / "report.html",
            "Which training images are behind these generated images?",
            [
                *([] if plain is None else [contrast_section(found_in.queries, plain)]),
                *findings_sections(found, found_in),
                *([] if found.scores is None else [score_section(found)]),
            ],
            provenance(settings),
            summary=f"{found.plan.num_queries} generated images, scored by {attributor.name}.",
        )
        say(f"Report: {page}")


def _build(method: Any, loss_fn: Any, given: dict[str, Any], before: Any) -> Any:
    """The attributor that the options ask for; `before`: the weights from before the tuning."""
    from jaxinf.applications.diffusion import loss_fall, mirrored_tuning
    from jaxinf.cli.methods import build_attributor
    from jaxinf.errors import InputError

    if method not in (_MIRRORED, _FALL):
        return build_attributor(Method(str(method)), loss_fn, **given)
    if "normalise" in given:
        raise InputError(f"{method} is divided by the loss as it is: leave normalise out")
    if method == _MIRRORED:
        return mirrored_tuning(loss_fn, **given)
    if before is None:
        raise InputError(f"{_FALL} needs --before: the folder of the model before its tuning")
    if given:
        raise InputError(f"{_FALL} takes no step: leave {' and '.join(given)} out")
    return loss_fall(loss_fn, before)
