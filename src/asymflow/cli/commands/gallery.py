"""`asymflow gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.cli import options

app = typer.Typer(help="Check, import and back up the pictures of a studio.")


@app.command("check")
def check_gallery(data: options.StudioFolder = None, json: options.Json = False) -> None:
    """Compare the database with the files; exits with 1 if they disagree."""
    from asymflow.cli import gallery

    if not gallery.check(data, json=json):
        raise typer.Exit(1)


@app.command("import")
def import_gallery(data: options.StudioFolder = None, json: options.Json = False) -> None:
    """Import pictures that the database does not list, from the records in their files."""
    from asymflow.cli import gallery

    if not gallery.take_in(data, json=json):
        raise typer.Exit(1)


@app.command("backup")
def backup_gallery(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the copy.")],
    data: options.StudioFolder = None,
    json: options.Json = False,
) -> None:
    """Copy the folder, even while a studio runs; repeated backups are incremental."""
    from asymflow.cli import gallery

    gallery.back_up(data, target, json=json)
