"""`asymflow token`."""

from __future__ import annotations

from typing import Annotated

import typer

from asymflow.cli import options

app = typer.Typer(help="Give people access to a server, each to pictures of their own.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the person.")]


@app.command("add")
def add_token(name: Name, data: options.StudioFolder = None, json: options.Json = False) -> None:
    """Make a token and print it, once; the server needs no restart."""
    from asymflow.cli import token

    token.add(name, data, json=json)


@app.command("list")
def list_tokens(data: options.StudioFolder = None, json: options.Json = False) -> None:
    """List whose tokens are valid."""
    from asymflow.cli import token

    token.names(data, json=json)


@app.command("revoke")
def revoke_token(name: Name, data: options.StudioFolder = None, json: options.Json = False) -> None:
    """Make a token invalid at once; the pictures made with it stay."""
    from asymflow.cli import token

    token.revoke(name, data, json=json)
