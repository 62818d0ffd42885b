"""`asymflow studio` and `asymflow serve`: pictures over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import webbrowser
from dataclasses import replace
from pathlib import Path

from asymflow.cli.report import tell
from asymflow.core.errors import InputError, MissingExtra

TOKEN = "ASYMFLOW_TOKEN"
"""The variable that may hold the token."""


def serve(
    *,
    host: str,
    port: int,
    data: Path | None,
    hosts: list[str],
    token_file: Path | None,
    drain: float | None,
    notice: float | None,
    weights: Path | None,
    dtype: str | None,
    device: str | None,
    keep_free: int,
    studio: bool,
    browser: bool,
) -> None:
    """Run a server until Ctrl-C.

    Args:
        keep_free: megabytes of the disk.
        drain: seconds that a signal lets go on what is being made, if not the usual ones.
        notice: seconds that it is told before the listener closes, if not the usual ones.
        studio: for one person at this machine, with the page; else for programs, with a log.
        browser: open the page.

    Raises:
        MissingExtra: the extra `studio` is not installed.
        InputError: the port is taken, or the address needs a token.
    """
    for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package.replace("_", "-"), "studio")
    from asymflow.server import app, logs
    from asymflow.server.settings import Settings

    token = _token(token_file)
    settings = Settings(
        data=(data or home()).expanduser().resolve(),
        host=host,
        port=port,
        token=token,
        hosts=tuple(hosts),
        weights=weights,
        dtype=dtype,
        device=device,
        spare=keep_free * 1_000_000,
        browser=studio,
        notice_seconds=notice,
    )
    if drain is not None:
        settings = replace(settings, drain_seconds=drain)
    logs.set_up(logging.WARNING if studio else logging.INFO)

    def started(address: str) -> None:
        link = address if token is None else f"{address}/?token={token}"
        if studio:
            tell(f"asymflow studio at {address}, Ctrl-C ends it")
            tell(f"files are in {settings.data}")
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


def home() -> Path:
    """The default data folder, as the system defines it."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "asymflow" / "studio"
