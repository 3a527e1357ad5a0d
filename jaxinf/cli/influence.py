"""`jaxinf influence`: which of the user's training examples are behind these predictions?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxinf.cli.devices import provenance, use_all_cores
from jaxinf.cli.methods import FileFormat, Method, Normalise
from jaxinf.cli.options import Progress, ReportBeside, ScoreStore


def influence(
    contract: Annotated[
        str,
        typer.Argument(
            help="A Python file (or dotted module) with a function influence() that returns a "
            "dict with loss_fn, params, queries and train, and optionally attributor, describe, "
            "stateful_loss and state; or a .toml file that names a model, its weights and data.",
            show_default=False,
        ),
    ],
    method: Annotated[
        Method | None,
        typer.Option(
            help="How influence is measured. forward-inf: one training step on the query, seen "
            "in every training example's loss; forward-inf-jvp: its exact limit for a small step; "
            "grad-dot, grad-cos: product and cosine of gradients; released: the paper's own "
            "recipe, which needs stateful_loss and state.",
            show_default="forward-inf-jvp",
        ),
    ] = None,
    normalise: Annotated[
        Normalise | None,
        typer.Option(
            help="Divide each training example's scores by its loss or its gradient's norm, so "
            "that hard examples do not win for every query.",
            show_default="neither",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Size of the step on the query, as for SGD (released: Adam).",
            show_default="0.01; released: 0.005",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="How many steps are taken on each query.", show_default="1")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Training examples per step, over all devices together.", show_default="256"
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Keep only that many of the highest and of the lowest scores per query, for "
            "training sets too large for a whole matrix.",
            show_default="all scores",
        ),
    ] = None,
    store: ScoreStore = None,
    out: Annotated[Path, typer.Option(help="Folder for the scores and report.html.")] = Path(
        "jaxinf-report"
    ),
    file_format: Annotated[
        FileFormat,
        typer.Option("--format", help="File of the scores: numpy's archive, or a parquet table."),
    ] = FileFormat.NPZ,
    report: ReportBeside = True,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the method released.", show_default="0")
    ] = None,
    progress: Progress = True,
) -> None:
    """Score your training examples by their influence on your queries.

    Positive scores are proponents: training on the example lowers the query's loss. Negative ones
    are opponents. Options given here win over those in a .toml file.
    """
    use_all_cores()
    from jaxinf import attribute
    from jaxinf.cli.config import load_config
    from jaxinf.cli.console import say, show_table
    from jaxinf.cli.contract import load_contract
    from jaxinf.cli.findings import findings_sections, top_table
    from jaxinf.cli.outputs import write_scores
    from jaxinf.report import write_report

    asked = {
        "name": method,
        "normalise": normalise,
        "learning_rate": learning_rate,
        "steps": steps,
        "batch_size": batch_size,
        "top_k": top_k,
        "seed": seed,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    if contract.endswith(".toml"):
        loaded, configured = load_config(Path(contract))
        given = configured | given
    else:
        loaded = load_contract(contract)
    attributor, params = _choose(loaded, given)
    found = attribute(
        attributor,
        params,
        loaded.queries,
        loaded.train,
        batch_size=given.get("batch_size", 256),
        top_k=given.get("top_k"),
        store=store,
        progress=progress,
    )
    written = write_scores(out, found, file_format)
    say(str(found.plan))
    show_table(top_table(found))
    say(f"Scores: {written}")
    if report:
        settings = {"contract": contract, "method": attributor.name} | {
            key: getattr(value, "value", value) for key, value in given.items() if key != "name"
        }
        page = write_report(
            out / "report.html",
            "Which training examples are behind these predictions?",
            findings_sections(found, loaded),
            provenance(settings),
            summary=f"{found.plan.num_queries} queries, scored by {attributor.name}.",
        )
        say(f"Report: {page}")


def _choose(loaded: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    """The attributor that the options or the contract ask for, and the params it wants."""
    from jaxinf.cli.methods import build_attributor
    from jaxinf.errors import InputError

    options = {
        key: given[key] for key in ("normalise", "learning_rate", "steps", "seed") if key in given
    }
    if loaded.attributor is not None and "name" not in given:
        if options:
            raise InputError(
                f"the contract brings its own attributor, so {', '.join(options)} cannot be "
                "given: change it there, or choose a --method"
            )
        return loaded.attributor, loaded.params
    name = _one_of(Method, given.get("name", Method.FORWARD_INF_JVP), "method name")
    if "normalise" in options:
        options["normalise"] = _one_of(Normalise, options["normalise"], "normalise")
    attributor = build_attributor(
        name, loaded.loss_fn, stateful_loss=loaded.stateful_loss, **options
    )
    if name is Method.RELEASED:
        if loaded.state is None:
            raise InputError("released needs the model's state: add it to the contract as 'state'")
        return attributor, (loaded.params, loaded.state)
    return attributor, loaded.params


def _one_of(kind: Any, value: Any, name: str) -> Any:
    from jaxinf.errors import InputError

    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise InputError(f"{name} {value!r} is unknown: choose from {known}") from None
