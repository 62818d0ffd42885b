"""Logging: one JSON object per line on standard error, without prompts, tokens and queries.

Messages of libraries, Python warnings and uncaught exceptions are included. Repeated messages
are limited to a few per minute, with the number of omitted ones.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asymflow.server.metrics import Metrics
from asymflow.server.problems import RESULTS

_PLAIN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_AT_ONCE = 10
_MINUTE = 60.0
_log = logging.getLogger("asymflow.server.calls")


class JsonFormatter(logging.Formatter):
    """A record with its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        data: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        data |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            data["error"] = self.formatException(record.exc_info)
        return json.dumps(data, default=str)


@dataclass(slots=True)
class _Count:
    """Number of messages of a line of code since a time."""

    since: float
    times: int = 0


class Sparing(logging.Filter):
    """Limits the messages of a line of code per minute; the next one has the number `left_out`.

    Otherwise a loop that fails would fill the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int], _Count] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        count = self._counts.setdefault((record.pathname, record.lineno), _Count(now))
        if now - count.since >= _MINUTE:
            if count.times > _AT_ONCE:
                record.left_out = count.times - _AT_ONCE
            count.since, count.times = now, 0
        count.times += 1
        return count.times <= _AT_ONCE


def set_up(level: int) -> None:
    """Log the server's messages from a level on, and warnings of libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Sparing())
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("asymflow.server", "uvicorn"):
        logging.getLogger(name).setLevel(level)
    sys.excepthook = _uncaught
    sys.unraisablehook = _ignored
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("asymflow.server").critical(
        "an error was not caught", exc_info=(kind, error, trace)
    )


def _ignored(found: sys.UnraisableHookArgs) -> None:
    error = found.exc_value
    logging.getLogger("asymflow.server").error(
        "an error was ignored",
        exc_info=None if error is None else (found.exc_type, error, found.exc_traceback),
        extra={"where": found.err_msg or repr(found.object)},
    )


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or issubclass(found.exc_type, SystemExit):
        return
    logging.getLogger("asymflow.server").critical(
        "an error ended a thread",
        exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
        extra={"ended": None if found.thread is None else found.thread.name},
    )


def _shown(path: str) -> str:
    """A path without what is secret in it."""
    return f"{RESULTS}..." if path.startswith(RESULTS) else path


class Logged:
    """Writes a line for every call, and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        # Clients may send any method name, and each would become a permanent metric.
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.calls.labels(method, str(status)).inc()
            _log.info(
                "call",
                extra={
                    "method": method,
                    "path": _shown(scope["path"]),
                    "status": status,
                    "ms": round(1000 * (time.perf_counter() - started), 1),
                },
            )
