"""The application: its options, its commands, and errors in one line."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jaxinf import __version__
from jaxinf.cli.demo import demo
from jaxinf.cli.diffusion import diffusion
from jaxinf.cli.doctor import doctor
from jaxinf.cli.influence import influence
from jaxinf.cli.language import language
from jaxinf.cli.leakage import leakage
from jaxinf.cli.membership import membership
from jaxinf.cli.memorisation import memorisation
from jaxinf.cli.mislabelled import mislabelled
from jaxinf.cli.value import value
from jaxinf.errors import InputError, MissingExtraError


class OneLineErrors(TyperGroup):
    """What the user can put right is told in one line and an exit code, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (InputError, MissingExtraError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"jaxinf: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, MissingExtraError) else 2) from None


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]jaxinf demo[/bold]: it needs no data and no download.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxinf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            envvar="JAXINF_TRACEBACK",
            help="Show the whole traceback of an error, not one line. Goes before the command.",
        ),
    ] = False,
) -> None:
    """What training data does to a model: what made it say this, and what is it worth?"""


app.command(
    epilog="Example: [bold]jaxinf demo --out my-demo --fast[/bold], then open "
    "my-demo/report.html in a browser.",
)(demo)
app.command(
    epilog="Examples: [bold]jaxinf influence my_model.py --method grad-cos --top-k 10[/bold]; "
    "[bold]jaxinf influence run.toml --store scores --out report[/bold] (the same line again "
    "resumes a killed run).",
)(influence)
app.command(
    epilog="Examples: [bold]jaxinf value train.csv valid.csv --label species --drop id[/bold]; "
    "[bold]jaxinf value photos/train photos/valid --size 32 --keep 0.8 --out cleaned[/bold]; "
    "[bold]jaxinf value data.npz data.npz --method knn-shapley[/bold].",
)(value)
app.command(
    epilog="Examples: [bold]jaxinf leakage photos/train photos/test --size 32[/bold]; "
    "[bold]jaxinf leakage data.npz data.npz --compare hash --store scores[/bold] (the same line "
    "again resumes a killed run); [bold]jaxinf leakage my_model.py --absolute[/bold].",
)(leakage)
app.command(
    epilog="Example: [bold]jaxinf language my-gpt2/ corpus.jsonl questions.jsonl[/bold], then "
    "open jaxinf-report/report.html; with --store scores the same line again resumes a killed run.",
)(language)
app.command(
    epilog="Example: [bold]jaxinf membership --model ViT-B-32.pt --targets suspects/ "
    "--nonmembers fresh/ --output verdict[/bold], then open verdict/report.html (the same line "
    "again resumes a killed run).",
)(membership)
app.command(
    epilog="Examples: [bold]jaxinf mislabelled train.csv --label species --drop id[/bold]; "
    "[bold]jaxinf mislabelled photos/train photos/trusted --size 32 --method "
    "trusted-consensus[/bold].",
)(mislabelled)
app.command(
    epilog="Examples: [bold]jaxinf memorisation train.csv --label species --drop id[/bold]; "
    "[bold]jaxinf memorisation photos/train --size 32 --retrain 200 --store run[/bold] (the same "
    "line again resumes a killed run).",
)(memorisation)
app.command(
    epilog="Examples: [bold]jaxinf diffusion model/ data.npz generated.npz --store scores[/bold] "
    "(the same line again resumes a killed run); [bold]jaxinf diffusion my_model.py[/bold].",
)(diffusion)
app.command(
    epilog="Example: [bold]jaxinf doctor[/bold] on a new machine, before trusting its numbers.",
)(doctor)
