"""`asymflow studio` and `asymflow serve`: pictures over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asymflow.cli.report import print_note
from asymflow.core.errors import InputError, MissingExtra
from asymflow.io import folders

TOKEN = "ASYMFLOW_TOKEN"
"""Environment variable of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of both commands, as given.

    Attributes:
        data: folder for pictures and jobs; the default folder if None.
        hosts: additional host names to accept.
        models: references of the models to serve, the default first; the embedded one if empty.
        keep_models: maximal number of models that are loaded.
        keep_free: disk space to leave free, in megabytes.
        drain: seconds to finish running work after a signal; the default if None.
        notice: seconds between a signal and closing the listener; the default if None.
        limits: further settings of the server by name; those that are None have their defaults.
    """

    host: str
    port: int
    data: Path | None
    hosts: tuple[str, ...]
    token_file: Path | None
    models: tuple[str, ...]
    keep_models: int
    dtype: str | None
    device: str | None
    keep_free: int
    drain: float | None = None
    notice: float | None = None
    limits: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())


def serve(options: ServerOptions, *, studio: bool = False, browser: bool = False) -> None:
    """Run a server until Ctrl-C.

    Args:
        options: where to listen and what to serve.
        studio: serve the page, for one local user; otherwise only the APIs, with a log.
        browser: open the page in a browser.

    Raises:
        MissingExtra: the extra `studio` is not installed.
        InputError: the port is taken, or the address needs a token.
    """
    for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package.replace("_", "-"), "studio")
    from asymflow.server import app, logs
    from asymflow.server.settings import Settings

    token = _token(options.token_file)
    settings = Settings(
        data=(options.data or folders.studio()).expanduser().resolve(),
        host=options.host,
        port=options.port,
        token=token,
        hosts=options.hosts,
        models=options.models,
        keep_models=options.keep_models,
        dtype=options.dtype,
        device=options.device,
        spare=options.keep_free * 1_000_000,
        browser=studio,
        notice_seconds=options.notice,
    )
    given: dict[str, Any] = {k: v for k, v in options.limits.items() if v is not None}
    settings = replace(settings, **given)
    if not settings.proxies and (known := os.environ.get("FORWARDED_ALLOW_IPS")):
        settings = replace(settings, proxies=tuple(known.split(",")))
    if options.drain is not None:
        settings = replace(settings, drain_seconds=options.drain)
    logs.set_up(logging.WARNING if studio else logging.INFO)

    def started(address: str) -> None:
        link = address if token is None else f"{address}/?token={token}"
        if studio:
            print_note(f"asymflow studio at {address}, press Ctrl-C to stop")
            print_note(f"files are in {settings.data}")
        else:
            log = logging.getLogger("asymflow.server")
            log.info("serving", extra={"address": address, "data": settings.data})
        if browser:
            threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()

    app.run(settings, started=started)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN) or None
    token = path.read_text("utf-8").strip()
    if not token:
        raise InputError(f"The token file {path} is empty. Fill it: openssl rand -hex 24 > {path}.")
    return token
