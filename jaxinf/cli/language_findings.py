"""What `jaxinf language` found, as a table, a file of scores, and texts with shaded words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import jax
import numpy as np

from jaxinf.applications.language import FactTrace, build_method, proponent_tokens, shades
from jaxinf.applications.language.methods import TextMethod
from jaxinf.errors import require_extra
from jaxinf.evaluation import top_k_overlap
from jaxinf.models.language import LoadedLM, TextTokenizer
from jaxinf.report import Column, Figure, Passage, Section, Table
from jaxinf.report.figures import line_chart

_QUERIES = 20
_DEEPEST = 100
_NOTE = (
    "Green: being taught to predict this word here makes the answer likelier; red: less so. The "
    "shade is the word's share of the score, relative to the strongest word of its text."
)
_NOTES = {
    "by-token": _NOTE.replace("the answer likelier", "the question and its answer likelier"),
    "best-token": _NOTE.replace("share of the score", "own score, the highest being its text's"),
}
_HEADINGS = {"bm25": "BM25, words alone", "combined": "combined with BM25"}


def top_table(
    found: FactTrace, sentences: Sequence[str], prompts: Sequence[str], answers: Sequence[str]
) -> Table:
    """The first text of every method for the first queries, BM25 first."""
    columns = (
        Column("question"),
        Column("model says so"),
        *(Column(_HEADINGS.get(name, name)) for name in found.scores),
    )
    best = {name: found.top(1, name)[:, 0] for name in found.scores}
    rows = tuple(
        (
            f"{prompts[query]} {answers[query]}",
            "yes" if found.answered[query] else "no",
            *(f"{rows[query]}: {sentences[rows[query]]}" for rows in best.values()),
        )
        for query in range(min(_QUERIES, len(prompts)))
    )
    return Table(columns, rows, "The training text that each method puts first, by row.")


def write_text_scores(folder: Path, scores: Mapping[str, np.ndarray]) -> Path:
    """Write scores.parquet: a row per training text, columns `train_index` and `METHOD/query_K`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = require_extra("pyarrow", "cli")
    folder.mkdir(parents=True, exist_ok=True)
    count = next(iter(scores.values())).shape[1]
    columns = {"train_index": np.arange(count)} | {
        f"{name}/query_{query}": row
        for name, matrix in scores.items()
        for query, row in enumerate(matrix)
    }
    file = folder / "scores.parquet"
    require_extra("pyarrow.parquet", "cli").write_table(pyarrow.table(columns), file)
    return file


def agreement_section(found: FactTrace) -> Section:
    """How much of BM25's first k texts the other rankings share, as k grows."""
    words, others = found.scores["bm25"], [name for name in found.scores if name != "bm25"]
    most = min(_DEEPEST, words.shape[1])
    cuts = np.unique(np.geomspace(1, most, 20).round().astype(int))
    lines = {
        _HEADINGS.get(name, name): (
            cuts,
            [top_k_overlap(words, found.scores[name], int(k)).mean() for k in cuts],
        )
        for name in others
    }
    chart = line_chart(
        lines,
        xlabel="texts read, the highest scores first",
        ylabel="also among BM25's, mean of the questions",
        chance=(cuts, cuts / words.shape[1]),
        log_x=True,
    )
    said = f"The model itself gives {int(found.answered.sum())} of {len(words)} answers."
    caption = (
        "How far each ranking is from that of words alone: what is shared, BM25 finds without a "
        "model; what is not, only the model shows, or it is an error of either."
    )
    return Section("Words alone, and the model", (said,), figures=(Figure(chart, caption),))


def query_sections(
    found: FactTrace,
    model: LoadedLM,
    tokenizer: TextTokenizer,
    sentences: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[str],
    methods: Sequence[str],
    top: int,
    key: jax.Array,
) -> list[Section]:
    """A chapter per question: the first texts of every method, words shaded where they split.

    `key` is that of `trace_facts`, so that the words' shares are of its scores.
    """
    first = list(range(min(_QUERIES, len(prompts))))
    tokens = _shaded(found, model, methods, first, top, key)
    sections = []
    for query in first:
        says = "The model gives this answer" if found.answered[query] else (
            "The model does not give this answer, so there may be nothing to trace"
        )  # fmt: skip
        passages = []
        for name in found.scores:
            for place, row in enumerate(found.top(top, name)[query], 1):
                heading = f"{_HEADINGS.get(name, name)}, {place}: row {row}, "
                heading += f"score {found.scores[name][query, row]:.3g}"
                if name in tokens:
                    ids = found.train["tokens"][row]
                    real = np.flatnonzero(found.train["mask"][row])
                    pieces = tokenizer.pieces(ids[real])
                    shown = zip(pieces, tokens[name][query, place - 1, real].tolist(), strict=True)
                    passages.append(Passage(tuple(shown), heading))
                else:
                    passages.append(Passage(((str(sentences[row]), 0.0),), heading))
        sections.append(
            Section(
                f"{prompts[query]} … {answers[query]}",
                (f"{says}: {found.nats[query]:.2f} nats per token of it.", *_note(tokens)),
                passages=tuple(passages),
            )
        )
    return sections


def _note(tokens: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(_NOTES.get(name, _NOTE) for name in tokens)


def _shaded(
    found: FactTrace,
    model: LoadedLM,
    methods: Sequence[str],
    queries: list[int],
    top: int,
    key: jax.Array,
) -> dict[str, np.ndarray]:
    shaded = {}
    for name in cast(Sequence[TextMethod], methods):
        if build_method(name, model.module).shares is None:
            continue
        rows = found.top(top, name)[queries]
        asked = {part: array[queries] for part, array in found.asked(name).items()}
        shares = proponent_tokens(
            model.module, model.params, name, asked, found.train, rows, key=key
        )
        shaded[name] = shades(shares, found.train["mask"][rows])
    return shaded
