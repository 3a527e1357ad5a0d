"""What a report is made of: frozen data, no HTML and no terminal codes.

The same table is printed in the terminal and set in the page.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Cell: TypeAlias = str | int | float | None
"""One entry of a table; None is shown as a dash."""

Mark: TypeAlias = Literal["", "query", "good", "bad"]
"""How an example is framed: plain, as the query, as something found, as a known fault."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        format: how numbers are written, as in `format(value, ".2f")`; None leaves text.
        best: whether the largest number of the column is set in bold.

    Example:
        >>> Column("AUC", ".2f").show(0.5), Column("AUC", ".2f").show(None)
        ('0.50', '–')
    """

    name: str
    format: str | None = None
    best: bool = False

    def show(self, cell: Cell) -> str:
        """The text of a cell."""
        if cell is None:
            return "–"
        if isinstance(cell, str) or self.format is None:
            return str(cell)
        return format(cell, self.format)


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        columns: what the cells of a row are, left to right.
        rows: one tuple of cells per row.
        caption: what the table says, in a sentence.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def shown(self) -> list[list[tuple[str, bool]]]:
        """Every cell as `(text, is it the best of its column)`.

        Example:
            >>> Table((Column("hits", ".1f", best=True),), ((0.2,), (1.0,))).shown()
            [[('0.2', False)], [('1.0', True)]]
        """
        best = [
            max((c for c in cells if isinstance(c, int | float)), default=None)
            if column.best
            else None
            for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=False)
        ]
        return [
            [
                (column.show(cell), top is not None and cell == top)
                for column, cell, top in zip(self.columns, row, best, strict=True)
            ]
            for row in self.rows
        ]


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        png: the file's bytes.
        caption: what to see in it.
        alt: the same for those who cannot see it; default the caption.
    """

    png: bytes
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Example:
    """One example as a reader meets it.

    Attributes:
        lines: short lines of text; the first is the most important.
        image: a PNG, or None for an example that is no picture.
        mark: how it is framed.
    """

    lines: tuple[str, ...]
    image: bytes | None = None
    mark: Mark = ""


@dataclass(frozen=True)
class Strip:
    """A row of examples: what is asked about, then groups of training examples under headings.

    Attributes:
        groups: `(heading, examples)`.
        query: what the groups are the answer to; None for a strip without a question.
    """

    groups: tuple[tuple[str, tuple[Example, ...]], ...]
    query: Example | None = None


@dataclass(frozen=True)
class Passage:
    """A text whose pieces are shaded: green for what speaks for, red for what speaks against.

    Attributes:
        pieces: `(text, shade)`, shade in [-1, 1]; 0 is plain.
        heading: what the text is.
    """

    pieces: tuple[tuple[str, float], ...]
    heading: str = ""

    def shown(self) -> list[tuple[str, str, float]]:
        """Every piece as `(text, class, opacity)`.

        Example:
            >>> Passage((("a", 0.5), ("b", -2.0), ("c", 0.0))).shown()
            [('a', 'for', 0.35), ('b', 'against', 0.7), ('c', 'plain', 0.0)]
        """
        kind = lambda shade: "plain" if not shade else "for" if shade > 0 else "against"
        return [
            (text, kind(shade), round(0.7 * min(abs(shade), 1.0), 3)) for text, shade in self.pieces
        ]


@dataclass(frozen=True)
class Section:
    """A chapter: text first, then tables, figures, strips of examples and shaded texts.

    Attributes:
        title: its heading.
        text: paragraphs, plain text.
        tables: in order.
        figures: in order; shown side by side where there is room.
        strips: in order.
        legend: `(mark, meaning)` of the frames that the strips use.
        passages: in order.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    strips: tuple[Strip, ...] = ()
    legend: tuple[tuple[Mark, str], ...] = ()
    passages: tuple[Passage, ...] = ()
