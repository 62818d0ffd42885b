"""`asymflow studio` and `asymflow serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.cli import options

Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Address to bind to. Anything but localhost requires a token."
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", metavar="NAME", help="Host name to accept in requests (repeatable)."
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "--weights",
        "-m",
        metavar="REF",
        help="A file, a folder, owner/name on a hub, or a package's model; see "
        "[cyan]asymflow models[/] (repeatable, the first is the default). "
        r"[dim]\[default: embedded][/]",
        rich_help_panel="Sampling",
    ),
]
KeepModels = Annotated[
    int,
    typer.Option(
        "--keep-models",
        metavar="N",
        min=1,
        help="Models that are loaded at a time; beyond that, the one unused the longest leaves.",
        rich_help_panel="Sampling",
    ),
]
KeepFree = Annotated[
    int,
    typer.Option(
        "--keep-free",
        metavar="MB",
        min=0,
        help="Disk space to leave free; generation stops below it.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="File with the token; or set ASYMFLOW_TOKEN."
    ),
]
Drain = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        max=3600,
        help="Time to finish pictures and requests after a signal; 6 by default.",
    ),
]
Notice = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        max=3600,
        help="Time between a signal, from which on /ready returns 503, and closing the listener; "
        "2 by default, 0 on loopback.",
    ),
]


def studio(
    port: Port = 7860,
    host: Host = "127.0.0.1",
    data: options.StudioFolder = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", metavar="", help="Do not open a browser.")
    ] = False,
    allow_host: AllowHost = None,
    token_file: TokenFile = None,
    model: Models = None,
    keep_models: KeepModels = 2,
    dtype: options.Dtype = None,
    device: options.Device = None,
    keep_free: KeepFree = 200,
) -> None:
    """Draw in the browser, with a gallery. Needs the extra [cyan]studio[/]."""
    from asymflow.cli import studio

    studio.serve(
        studio.ServerOptions(
            host=host,
            port=port,
            data=data,
            hosts=tuple(allow_host or ()),
            token_file=token_file,
            models=tuple(model or ()),
            keep_models=keep_models,
            dtype=dtype,
            device=device,
            keep_free=keep_free,
        ),
        studio=True,
        browser=not no_browser,
    )


def serve(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    data: options.StudioFolder = None,
    allow_host: AllowHost = None,
    token_file: TokenFile = None,
    drain: Drain = None,
    notice: Notice = None,
    model: Models = None,
    keep_models: KeepModels = 2,
    dtype: options.Dtype = None,
    device: options.Device = None,
    keep_free: KeepFree = 200,
) -> None:
    """Start the HTTP server: native API and an OpenAI-compatible one.

    Needs the extra [cyan]studio[/].
    """
    from asymflow.cli import studio

    studio.serve(
        studio.ServerOptions(
            host=host,
            port=port,
            data=data,
            hosts=tuple(allow_host or ()),
            token_file=token_file,
            models=tuple(model or ()),
            keep_models=keep_models,
            dtype=dtype,
            device=device,
            keep_free=keep_free,
            drain=drain,
            notice=notice,
        )
    )
