"""`jaxinf language`: which training texts made a language model answer so?"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jaxinf.cli.devices import provenance, use_all_cores
from jaxinf.cli.options import ReportBeside, ScoreStore


class LanguageMethod(StrEnum):
    """What stands beside BM25."""

    BY_TOKEN = "by-token"
    BEST_TOKEN = "best-token"
    PRECONDITIONED = "preconditioned"
    FORWARD_INF = "forward-inf"
    FORWARD_INF_JVP = "forward-inf-jvp"
    GRAD_DOT = "grad-dot"
    GRAD_COS = "grad-cos"
    TRAK = "trak"
    HIDDEN_STATES = "hidden-states"
    WHITENED_STATES = "whitened-states"
    NONE = "none"


def language(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Folder of a Hugging Face causal language model: config.json (GPT-2, GPT-NeoX or "
            "Pythia, Llama), safetensors, tokenizer.json.",
            show_default=False,
        ),
    ],
    train: Annotated[
        Path,
        typer.Argument(
            help="The texts it was trained on: .txt (one a line), .jsonl, .csv or .parquet.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        Path,
        typer.Argument(
            help="What is asked: .jsonl, .csv or .parquet with a prompt and an answer per row.",
            show_default=False,
        ),
    ],
    method: Annotated[
        LanguageMethod,
        typer.Option(
            help="What looks at the model, beside BM25. by-token: what the words of a text "
            "and of the question share, word by word; best-token: what one word shares with the "
            "answer; preconditioned: the answer's gradient over "
            "the training set's curvature, in forward passes; forward-inf: a step on the answer, "
            "seen in every text's loss; forward-inf-jvp: its limit; none: BM25 alone.",
        ),
    ] = LanguageMethod.BY_TOKEN,
    weight: Annotated[
        float, typer.Option(help="Of the method where it is combined with BM25, which has 1.")
    ] = 0.25,
    column: Annotated[
        str | None, typer.Option(help="Column of the training texts.", show_default="text")
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(help="Column of the prompts.", show_default="prompt")
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Column of the answers.", show_default="answer")
    ] = None,
    top: Annotated[int, typer.Option(help="Training texts shown per query.")] = 5,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts over the model's context.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(help="Training texts per step, over all devices together.")
    ] = 64,
    query_chunk: Annotated[
        int | None,
        typer.Option(help="Queries scored at once.", show_default="what fits in 2 GiB"),
    ] = None,
    store: ScoreStore = None,
    out: Annotated[Path, typer.Option(help="Folder for scores.parquet and report.html.")] = Path(
        "jaxinf-report"
    ),
    report: ReportBeside = True,
    seed: Annotated[int, typer.Option(help="Of random probes and projections.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars on stderr.")] = True,
) -> None:
    """Find the training texts behind a language model's answers.

    BM25 over words is always shown first: where it finds the text, no model is needed. Positive
    scores of the other methods are proponents: training on the text makes the answer likelier.
    """
    use_all_cores()
    import jax

    from jaxinf.applications.language import trace_facts
    from jaxinf.cli.console import say, show_table
    from jaxinf.cli.language_findings import (
        agreement_section,
        query_sections,
        top_table,
        write_text_scores,
    )
    from jaxinf.cli.texts import ANSWERS, PROMPTS, TEXTS, read_columns
    from jaxinf.errors import check_count
    from jaxinf.models.language import load_causal_lm, load_tokenizer
    from jaxinf.report import write_report

    check_count(top, "top")
    (sentences,) = read_columns(train, [(column, TEXTS, "the texts", "--column")])
    prompts, answers = read_columns(
        queries,
        [
            (prompt_column, PROMPTS, "the prompts", "--prompt-column"),
            (answer_column, ANSWERS, "the answers", "--answer-column"),
        ],
    )
    model = load_causal_lm(checkpoint)
    tokenizer = load_tokenizer(checkpoint, end=model.end, begin=model.begin)
    names = () if method is LanguageMethod.NONE else (method.value,)
    key = jax.random.key(seed)
    found = trace_facts(
        model.module,
        model.params,
        tokenizer,
        sentences,
        prompts,
        answers,
        methods=names,
        weight=weight,
        batch_size=batch_size,
        query_chunk=query_chunk,
        truncate=truncate,
        store=store,
        progress=progress,
        key=key,
    )
    shown = min(top, len(sentences))
    written = write_text_scores(out, found.scores)
    show_table(top_table(found, sentences, prompts, answers))
    say(f"{int(found.answered.sum())} of {len(prompts)} answers are what the model itself says")
    say(f"Scores: {written}")
    if report:
        settings = {
            "checkpoint": checkpoint, "train": train, "queries": queries, "method": method.value,
            "weight": weight, "seed": seed,
        }  # fmt: skip
        page = write_report(
            out / "report.html",
            "Which training texts are behind these answers?",
            [
                *([agreement_section(found)] if names else []),
                *query_sections(
                    found, model, tokenizer, sentences, prompts, answers, names, shown, key
                ),
            ],
            provenance(settings),
            summary=f"{len(prompts)} questions, {len(sentences)} training texts.",
        )
        say(f"Report: {page}")
