"""Progress in the terminal: a preview of the picture and the remaining time.

Written to standard error, and only if that is a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from asymflow.core.types import Picture
from asymflow.io.images import fit, to_bytes
from asymflow.io.progress import bars

if TYPE_CHECKING:
    from asymflow.generation.pipeline import Advance, Look

_INTERVAL = 0.1  # seconds between previews, which cost as much as a step of a small picture


@contextmanager
def screen(total: int, *, preview: bool) -> Generator[Advance]:
    """Show progress over `total` steps; with `preview`, also the current estimate of x_0.

    The last preview stays on the terminal.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda steps, look: None
        return
    preview = preview and console.color_system in ("truecolor", "256")
    progress = bars("steps")
    task = progress.add_task("drawing", total=total)
    shown = Text()
    updated = 0.0
    with Live(progress, console=console, refresh_per_second=10, transient=not preview) as live:

        def advance(steps: int, look: Look) -> None:
            nonlocal updated, shown
            progress.advance(task, steps)
            done = progress.finished
            if preview and (done or time.monotonic() - updated > _INTERVAL):
                shown = half_blocks(strip(look(), console.width, console.height - 4))
                updated = time.monotonic()
                live.update(shown if done else Group(shown, progress))

        yield advance
        if not progress.finished and preview:
            live.update(shown)


def half_blocks(pixels: NDArray[np.uint8]) -> Text:
    """Straight RGBA [h, w, 4] as text, two pixels per character; alpha below 128 is blank."""
    if len(pixels) % 2:
        pixels = np.pad(pixels, ((0, 1), (0, 0), (0, 0)))
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append(*_cell(top, bottom))
        text.append("\n")
    return text


def _cell(top: Sequence[int], bottom: Sequence[int]) -> tuple[str, str]:
    if top[3] < 128 and bottom[3] < 128:
        return " ", ""
    if bottom[3] < 128:
        return "▀", _rgb(top)
    if top[3] < 128:
        return "▄", _rgb(bottom)
    return "▀", f"{_rgb(top)} on {_rgb(bottom)}"


def _rgb(pixel: Sequence[int]) -> str:
    return f"#{pixel[0]:02x}{pixel[1]:02x}{pixel[2]:02x}"


def strip(pictures: Sequence[Picture], columns: int, rows: int) -> NDArray[np.uint8]:
    """As many pictures side by side as fit; a single one is scaled down if needed."""
    height, width = pictures[0].shape[:2]
    scale = min(1.0, columns / width, 2 * max(rows, 1) / height)
    count = max(1, int(columns / (width * scale)))
    picture = np.concatenate(pictures[:count], axis=1)
    size = (max(1, int(picture.shape[0] * scale)), max(1, int(picture.shape[1] * scale)))
    return to_bytes(fit(picture, size))
