"""Progress of long work: done, rate and time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def announce(text: str, *, enabled: bool = True) -> None:
    """Say one line, where progress is shown.

    Example:
        >>> announce("scorer jvp", enabled=False)
    """
    if not enabled:
        return
    from rich.console import Console

    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def track_rows(
    description: str, total: int | None, *, enabled: bool = True, unit: str = "rows"
) -> Iterator[Callable[[int], None]]:
    """Show a bar with the count, the rate and the time left while the block runs.

    Args:
        description: what is being done.
        total: how many units there are, None when unknown.
        enabled: False shows nothing and costs nothing.
        unit: what is counted.

    Yields:
        `advance(count)`, to be called as work is done.

    Example:
        >>> with track_rows("scoring", 10, enabled=False) as advance:
        ...     advance(10)
    """
    if not enabled:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"– {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.update(task, advance=count)
