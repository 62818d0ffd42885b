"""`asymflow studio` and `asymflow serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.cli import options

_HOUR, _DAY = 3600.0, 86_400.0
_MB = 1_000_000

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
KeepDeleted = Annotated[
    float | None,
    typer.Option(
        "--keep-deleted",
        metavar="HOURS",
        min=0,
        help="How long deleted pictures can be restored; 24 by default.",
        rich_help_panel="Limits",
    ),
]
KeepPictures = Annotated[
    float | None,
    typer.Option(
        "--keep-pictures",
        metavar="DAYS",
        min=0,
        help="How long pictures stay in the gallery, except favourites; for ever by default.",
        rich_help_panel="Limits",
    ),
]
KeepResults = Annotated[
    float | None,
    typer.Option(
        "--keep-results",
        metavar="HOURS",
        min=0,
        help="How long pictures of the APIs for programs are kept; 1 by default.",
        rich_help_panel="Limits",
    ),
]
KeepUploads = Annotated[
    float | None,
    typer.Option(
        "--keep-uploads",
        metavar="HOURS",
        min=0,
        help="How long uploads are kept; 168 by default.",
        rich_help_panel="Limits",
    ),
]
UploadSpace = Annotated[
    int | None,
    typer.Option(
        "--upload-space",
        metavar="MB",
        min=1,
        help="Disk space of all uploads, beyond which the oldest leave; 1000 by default.",
        rich_help_panel="Limits",
    ),
]
MaxUpload = Annotated[
    int | None,
    typer.Option(
        "--max-upload",
        metavar="MB",
        min=1,
        help="Largest picture that is accepted; 20 by default.",
        rich_help_panel="Limits",
    ),
]
Queue = Annotated[
    int | None,
    typer.Option(
        "--queue",
        metavar="N",
        min=1,
        help="Pictures that may wait; 256 by default.",
        rich_help_panel="Limits",
    ),
]
QueuePerClient = Annotated[
    int | None,
    typer.Option(
        "--queue-per-client",
        metavar="N",
        min=1,
        help="Pictures of one client that may wait; 96 by default.",
        rich_help_panel="Limits",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="N",
        min=0.01,
        help="Calls per second of one client on average, except reading; 10 by default.",
        rich_help_panel="Limits",
    ),
]
PictureTimeout = Annotated[
    float | None,
    typer.Option(
        "--picture-timeout",
        metavar="SECONDS",
        min=1,
        help="Longest time for a picture; 600 by default.",
        rich_help_panel="Limits",
    ),
]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--wait-timeout",
        metavar="SECONDS",
        min=1,
        help="Longest time in the queue; 3600 by default.",
        rich_help_panel="Limits",
    ),
]
Connections = Annotated[
    int | None,
    typer.Option(
        "--connections",
        metavar="N",
        min=16,
        help="Open connections; 2048 by default, or what the limit of open files permits.",
        rich_help_panel="Limits",
    ),
]
Proxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="ADDRESS",
        help="Proxy whose X-Forwarded-For and -Proto are believed: an address or a network "
        "(repeatable).",
    ),
]
PublicUrl = Annotated[
    str | None,
    typer.Option(
        "--public-url", metavar="URL", help="Address of this server for clients, in results."
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
    keep_deleted: KeepDeleted = None,
    keep_pictures: KeepPictures = None,
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
            limits={
                "undo_seconds": _seconds(keep_deleted, _HOUR),
                "gallery_seconds": _seconds(keep_pictures, _DAY),
            },
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
    keep_deleted: KeepDeleted = None,
    keep_pictures: KeepPictures = None,
    keep_results: KeepResults = None,
    keep_uploads: KeepUploads = None,
    upload_space: UploadSpace = None,
    max_upload: MaxUpload = None,
    queue: Queue = None,
    queue_per_client: QueuePerClient = None,
    rate: Rate = None,
    picture_timeout: PictureTimeout = None,
    wait_timeout: WaitTimeout = None,
    connections: Connections = None,
    proxy: Proxy = None,
    public_url: PublicUrl = None,
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
            limits={
                "undo_seconds": _seconds(keep_deleted, _HOUR),
                "gallery_seconds": _seconds(keep_pictures, _DAY),
                "passing_seconds": _seconds(keep_results, _HOUR),
                "upload_seconds": _seconds(keep_uploads, _HOUR),
                "upload_space": None if upload_space is None else upload_space * _MB,
                "upload_bytes": None if max_upload is None else max_upload * _MB,
                "queue": queue,
                "queue_of_one": queue_per_client,
                "rate": rate,
                "picture_seconds": picture_timeout,
                "wait_seconds": wait_timeout,
                "connections": connections,
                "proxies": tuple(proxy) if proxy else None,
                "public_url": public_url,
            },
        )
    )


def _seconds(given: float | None, unit: float) -> float | None:
    return None if given is None else given * unit
