"""What the terminal shows: tables on stdout, progress on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from jaxinf.report.sections import Table


def say(text: str) -> None:
    """Print a line of plain text: nothing in it is markup, and paths are not broken."""
    Console(soft_wrap=True, highlight=False).print(Text(text))


def show_table(table: Table, title: str = "") -> None:
    """Print a report's table."""
    printed = RichTable(title=Text(title) if title else None, title_justify="left")
    for column in table.columns:
        printed.add_column(Text(column.name), justify="left" if column.format is None else "right")
    for row in table.shown():
        printed.add_row(*(Text(text, style="bold green" if best else "") for text, best in row))
    # a table cut to 80 columns would lose its figures where the output is no terminal
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(printed)


@contextmanager
def steps(total: int, *, enabled: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar over steps of very different kinds; yields `begin(description)`, one call per step."""
    with Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        disable=not enabled,
    ) as progress:
        task = progress.add_task("", total=total)
        begun = 0

        def begin(description: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=description)
            begun += 1

        yield begin
        progress.update(task, completed=begun, description="done")
