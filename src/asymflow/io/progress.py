"""Bars that show how far long work is."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def bars(
    unit: str = "", *, percent: bool = False, transient: bool = False, visible: bool = True
) -> Progress:
    """Bars with their label, how much is done, and the time that is left.

    They go to the standard error, and only where that is a terminal.

    Args:
        unit: what is counted, for instance "files".
        percent: show the share that is done instead of a count.
        transient: remove the bars at the end.
        visible: False shows nothing.
    """
    console = Console(stderr=True)
    counted: list[ProgressColumn] = [TaskProgressColumn() if percent else MofNCompleteColumn()]
    if unit:
        counted.append(TextColumn(f"{unit},"))
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        *counted,
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=transient,
        disable=not (visible and console.is_terminal),
    )
