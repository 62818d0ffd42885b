"""`asymflow styles`: the styles of a model."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from asymflow.cli.report import print_json, print_note
from asymflow.generation import pipeline
from asymflow.generation import styles as known


def styles(ref: str | None, *, as_json: bool) -> None:
    """List the styles, what they add to a prompt, and the authors of the artwork."""
    model = pipeline.load(ref)
    found = known.styles_of(model.card)
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "id": s.id,
                "names": list(s.names or (s.name,)),
                "suffix": s.suffix,
                "notice": s.notice,
            }
            for s in found
        ]
        print_json({"styles": rows})
        return
    words = any(style.suffix for style in found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("style", style="cyan")
    table.add_column("also called")
    table.add_column("added to the prompt" if words else "artwork")
    for style in found:
        others = ", ".join(n for n in dict.fromkeys((style.name, *style.names)) if n != style.id)
        table.add_row(style.id, others, style.suffix or style.notice)
    if found:
        Console().print(table)
    else:
        print_note(f"{model.card.title} knows no styles.")
    if words:
        print_note(f"To change them, copy and edit {known.file()}; see the guide.")
