"""`asymflow styles`: the styles of the model."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from asymflow.cli.report import print_json
from asymflow.models.embedded.styles import STYLES


def styles(*, as_json: bool) -> None:
    """List the styles, their names in prompts, and the authors of the artwork."""
    if as_json:
        print_json(
            {
                "styles": [
                    {
                        "id": style.id,
                        "names": list(style.names),
                        "licence": style.licence,
                        "author": style.author,
                        "upstream": style.upstream,
                    }
                    for style in STYLES
                ]
            }
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("style", "also called", "licence of the artwork", "by"):
        table.add_column(column, style="cyan" if column == "style" else None)
    for style in STYLES:
        others = ", ".join(name for name in style.names if name != style.id)
        table.add_row(style.id, others, style.licence, style.author)
    Console().print(table)
