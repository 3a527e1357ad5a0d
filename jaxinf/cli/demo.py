"""`jaxinf demo`: the main job on embedded data, with planted faults and known answers."""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from jaxinf.cli.devices import provenance, use_all_cores

_FAST = {"epochs": 4, "num_leaked": 20, "num_train": 512}


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for report.html, scores.npz and results.json.")
    ] = Path("jaxinf-demo"),
    seed: Annotated[
        int, typer.Option(help="Seed of the split, the planted faults and the training.")
    ] = 0,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Fewer epochs, leaks and training digits (4, 20 and 512): sooner, and rougher. "
            "Options given beside it still count.",
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training set.", show_default="8"),
    ] = None,
    leaked: Annotated[
        int | None,
        typer.Option(
            help="How many training digits are copied into the test set.", show_default="100"
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Share of the training labels that are made wrong, 0 to 1.")
    ] = 0.1,
    train_size: Annotated[
        int | None,
        typer.Option(help="Training digits used, at least 64.", show_default="all 1,437"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Influence method to run, such as grad-cos; give it again for more. The "
            "baselines always run.",
            show_default="all of them",
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars on stderr.")] = True,
) -> None:
    """Train on digits with planted faults, and ask which training examples are behind them.

    100 training digits are leaked into the test set and 10 % of the training labels are made
    wrong; Forward-INF in its forms, gradient cosine and trivial baselines then look for both, LAVA
    values every training digit by trusted ones, and the truth is known. Takes one to three
    minutes on a laptop.
    """
    use_all_cores()
    from jaxinf.cli.console import say, show_table, steps
    from jaxinf.cli.demonstration import QUESTIONS, Settings, train_subject
    from jaxinf.cli.demonstration.overview import cost_section, setup_section
    from jaxinf.report import write_report

    contenders = _chosen(method)
    asked = {"epochs": epochs, "num_leaked": leaked, "num_train": train_size}
    preset = _FAST if fast else {}
    given = {name: value for name, value in asked.items() if value is not None}
    settings = Settings(seed=seed, noise=noise, **(preset | given))
    began = time.perf_counter()
    say("Training a small network on digits with planted faults.")
    subject = train_subject(settings, progress=progress)
    say(
        f"Test accuracy {subject.figures['test_accuracy']:.1%}. Now scoring "
        f"{len(subject.train['y']):,} training examples."
    )
    # two questions run every contender, and three baselines in all; values take 3 steps more,
    # and membership 4
    with steps(2 * len(contenders) + 11, enabled=progress) as begin:
        found = [question(subject, contenders, begin) for question in QUESTIONS]
    answers = [answer for answer in found if answer is not None]
    seconds = time.perf_counter() - began

    settings_shown = vars(settings) | {"seconds": f"{seconds:.0f}"}
    made_by = provenance({"command": "jaxinf demo", **settings_shown})
    sections = [
        setup_section(subject, settings),
        *(answer.section for answer in answers),
        cost_section(answers),
    ]
    report = write_report(
        out / "report.html",
        "What did the training data do?",
        sections,
        made_by,
        summary="A small network, trained on handwritten digits with planted faults, and the "
        "training examples that influence methods hold responsible.",
    )
    arrays = {f"{a.name}/{key}": values for a in answers for key, values in a.scores.items()}
    np.savez_compressed(out / "scores.npz", allow_pickle=False, **arrays)
    results = {
        "subject": subject.figures,
        **{answer.name: answer.results for answer in answers},
        "provenance": made_by,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    for answer in answers:
        for table in answer.section.tables[:1]:
            show_table(table, answer.section.title)
        say(f"{answer.summary}\n")
    say(
        f"Took {seconds:.0f} s. Open {report} in a browser; scores.npz and results.json lie "
        "beside it."
    )


def _chosen(names: list[str] | None):
    from jaxinf.cli.demonstration import CONTENDERS
    from jaxinf.errors import InputError

    known = {contender.name: contender for contender in CONTENDERS}
    for name in names or ():
        if name not in known:
            raise InputError(f"--method {name} is unknown: choose from {', '.join(known)}")
    return tuple(c for c in CONTENDERS if not names or c.name in names)
