"""What `jaxinf influence` found, as tables and as pictures or lines of text."""

from typing import Any

import jax
import numpy as np

from jaxinf.cli.contract import Contract
from jaxinf.engine import Source, as_source
from jaxinf.errors import InputError
from jaxinf.influence import Attribution, QueryGroups
from jaxinf.report.figures import image_png
from jaxinf.report.sections import Column, Example, Mark, Section, Strip, Table

_PROPONENTS, _OPPONENTS, _QUERIES = 5, 3, 20


def top_table(found: Attribution, num_queries: int = 5) -> Table:
    """The highest- and lowest-scored training examples of the first queries."""
    (best, gains), (worst, losses) = found.proponents(3), found.opponents(3)
    rows = tuple(
        (query, _listed(best[query], gains[query]), _listed(worst[query], losses[query]))
        for query in range(min(num_queries, len(best)))
    )
    columns = (Column("query", ","), Column("proponents: row (score)"), Column("opponents"))
    return Table(columns, rows, "Training rows with the highest and the lowest scores.")


def findings_sections(found: Attribution, contract: Contract) -> list[Section]:
    """The report's chapters: examples for each query, then plan and diagnostics.

    Raises:
        InputError: when the contract's `describe` fails.
    """
    train = as_source(contract.train)
    examples = contract.queries
    grouped = isinstance(examples, QueryGroups)
    queries = None if grouped else as_source(examples, "queries")
    # an iterable of batches was read once, and cannot be asked for its rows again
    rows = train if isinstance(train, Source) else None
    (best, gains), (worst, losses) = found.proponents(_PROPONENTS), found.opponents(_OPPONENTS)
    strips = []
    for query in range(min(_QUERIES, len(best))):
        card = Example((f"query {query}", "a group of examples" if grouped else ""), None, "query")
        if isinstance(queries, Source):
            card = _card(contract, queries, query, (f"query {query}",), "query")
        strips.append(
            Strip(
                (
                    ("Proponents", _cards(contract, rows, best[query], gains[query])),
                    ("Opponents", _cards(contract, rows, worst[query], losses[query])),
                ),
                card,
            )
        )
    more = len(best) - len(strips)
    first = Section(
        title="Proponents and opponents",
        text=(
            "Proponents are the training examples with the highest scores: training on them "
            "lowers the loss of the query. Opponents have the lowest: training on them raises it. "
            "Scores compare training examples for one query; across queries and methods their "
            "scales differ. Where a method drops the sign (the released recipe, similarities), low "
            "scores mean little effect, not harm.",
            *(
                (f"The first {len(strips)} queries; {more} more are in the scores.",)
                if more
                else ()
            ),
        ),
        strips=tuple(strips),
        legend=(("query", "the query"),),
    )
    return [first, _plan_section(found)]


def _cards(
    contract: Contract, source: Source | None, rows: np.ndarray, scores: np.ndarray
) -> tuple[Example, ...]:
    cards = []
    for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
        if row < 0:
            continue
        lines = (f"score {score:+#.3g}", f"row {row}")
        cards.append(_card(contract, source, row, lines) if source else Example(lines))
    return tuple(cards)


def _card(
    contract: Contract, source: Source, row: int, lines: tuple[str, ...], mark: Mark = ""
) -> Example:
    example = jax.tree.map(lambda a: np.asarray(a)[0], source.read(row, row + 1))
    if contract.describe is None:
        caption, picture = default_description(example)
    else:
        try:
            caption, picture = _split(contract.describe(example))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"describe failed on row {row}: {error!r}") from error
    image = None if picture is None else image_png(picture)
    return Example((*([caption] if caption else []), *lines), image, mark)


def default_description(example: Any) -> tuple[str, np.ndarray | None]:
    """Caption and picture of an example that nobody described.

    The picture is the first leaf of shape [H, W, c] with 1, 3 or 4 channels. The caption names the
    integers (labels, most likely), and shows the first values of what is no picture.

    Example:
        >>> default_description({"x": np.zeros((2,)), "y": np.int32(3)})
        ('y 3, x [0, 0]', None)
    """
    picture, said = None, []
    for path, leaf in jax.tree_util.tree_leaves_with_path(example):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "value"
        if picture is None and _is_picture(leaf):
            picture = leaf
        elif leaf.ndim == 0:
            said.insert(0, f"{name} {leaf.item():.4g}")
        elif not _is_picture(leaf):
            values = ", ".join(f"{value:.3g}" for value in leaf.ravel()[:6].tolist())
            said.append(f"{name} [{values}{', …' if leaf.size > 6 else ''}]")
    return ", ".join(said), picture


def _is_picture(leaf: np.ndarray) -> bool:
    return leaf.ndim == 3 and leaf.shape[-1] in (1, 3, 4) and min(leaf.shape[:2]) >= 4


def _split(described: Any) -> tuple[str, np.ndarray | None]:
    if isinstance(described, str):
        return described, None
    if isinstance(described, tuple):
        caption, picture = described
        return str(caption), None if picture is None else np.asarray(picture)
    return "", np.asarray(described)


def _plan_section(found: Attribution) -> Section:
    tables = ()
    if found.diagnostics:
        names = list(found.diagnostics)
        rows = tuple(
            (query, *(float(found.diagnostics[name][query]) for name in names))
            for query in range(min(_QUERIES, found.plan.num_queries))
        )
        columns = (Column("query", ","), *(Column(name, ".3g") for name in names))
        tables = (Table(columns, rows, "Diagnostics of each query; the method's help says more."),)
    return Section("What it cost, and how far to trust it", (f"{found.plan}.",), tables)


def _listed(rows: np.ndarray, scores: np.ndarray) -> str:
    pairs = zip(rows.tolist(), scores.tolist(), strict=True)
    return ", ".join(f"{row} ({score:+#.3g})" for row, score in pairs if row >= 0)
