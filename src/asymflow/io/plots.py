"""matplotlib, which only plots need."""

from typing import Any

from asymflow.core.errors import MissingExtra


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, in inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots") from error
    return Figure(figsize=(width, height), layout="constrained")
