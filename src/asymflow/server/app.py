"""Assembles a server and runs it."""

from __future__ import annotations

import asyncio
import errno
import html
import logging
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from uvicorn.server import HANDLED_SIGNALS

from asymflow._version import __version__
from asymflow.core.errors import AsymflowError, InputError
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.server import (
    api,
    lineup,
    openai,
    openapi_schema,
    remote,
    restored,
    vectors,
    webui,
    words,
)
from asymflow.server.connections import BACKLOG, Config, fitting, look_after, make_room
from asymflow.server.lineup import Load
from asymflow.server.logs import Logged
from asymflow.server.manager import JobManager
from asymflow.server.metrics import Metrics
from asymflow.server.page import Page
from asymflow.server.problems import (
    CODES,
    NO_ROOM,
    WEBUI,
    ApiError,
    ProblemDetail,
    Refusal,
    disk_is_full,
    envelope,
    headers_of,
)
from asymflow.server.security import Protected
from asymflow.server.settings import STATIC, Settings
from asymflow.server.state import Here, Studio
from asymflow.server.store import Store
from asymflow.server.tokens import Tokens
from asymflow.server.worker import Workers
from asymflow.server.workshop import Workshop

_HOUR = 3600.0
_RECORDS_KEPT = 24 * _HOUR
"""How long an idempotency key finds its job, and jobs without pictures are remembered."""
_DESCRIPTION = (
    "Failed calls of `/api` have a problem with a `code` and, in `values`, what its message says "
    "of this case. Besides the types of pydantic's errors the codes are:\n\n"
) + "\n".join(f"- `{code}`: {says}" for code, says in CODES.items())
_TOLD = "asymflow.told"
"""Whether the error of a call was logged and answered, in its scope."""
_log = logging.getLogger("asymflow.server")

_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accepting a connection when the system has no resources left."""


def create_app(settings: Settings, load: Load | Mapping[str, Load] | None = None) -> FastAPI:
    """Create the application. It loads the first model at its start, and serves calls meanwhile.

    Args:
        settings: of the server.
        load: returns the model, or several of them by id, instead of those in the settings.

    Raises:
        FileFormatError, OSError: the data folder cannot be used.
    """
    metrics = Metrics()
    store = Store(settings.data, upload_space=settings.upload_space)
    if strangers := store.strangers():
        _log.warning(
            "pictures are not in the database, and in no gallery",
            extra={
                "count": len(strangers),
                "next": f"asymflow gallery import --data {settings.data} takes them in",
            },
        )
    manager = JobManager(settings, store, metrics, _loads(settings, load))
    workers = Workers(manager)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        workers.start()
        cleaner = asyncio.create_task(_clean(settings, store))
        yield
        manager.close()
        cleaner.cancel()
        with suppress(asyncio.CancelledError):
            await cleaner
        workers.abandon()
        await asyncio.to_thread(workers.finish, settings.stop_seconds)
        store.close()

    app = _App(
        title="asymflow",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=openapi_schema.FAILURES,
    )
    tokens = Tokens(settings.data)
    app.state.studio = Studio(settings, store, manager, metrics, Workshop(settings), tokens)
    app.state.sessions = webui.Sessions()
    app.include_router(openai.router)
    app.include_router(_operations)
    if not settings.replicated:
        app.include_router(api.router)
        app.include_router(words.router)
        app.include_router(vectors.router)
        app.include_router(restored.router)
        app.include_router(webui.router)
    app.add_api_route("/docs", _docs, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(AsymflowError, _wrong)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _unwritten)
    app.add_exception_handler(sqlite3.Error, _unwritten)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    app.add_exception_handler(Exception, _broken)
    if settings.browser and not settings.replicated and (STATIC / "index.html").is_file():
        app.mount("/", Page(directory=STATIC, html=True))
    # The middleware added last is the outermost.
    app.add_middleware(Protected, settings=settings, manager=manager, tokens=tokens)
    app.add_middleware(Logged, metrics=metrics)
    return app


def run(
    settings: Settings,
    *,
    started: Callable[[str], None],
    load: Load | Mapping[str, Load] | None = None,
) -> None:
    """Serve until a signal, with as many connections as the limit of open files permits.

    Args:
        settings: of the server.
        started: called with the address once the server listens.
        load: as for `create_app`.

    Raises:
        InputError: the port is taken.
        FileFormatError, OSError: the data folder cannot be used.
    """
    settings = replace(settings, connections=fitting(settings))
    Running(create_app(settings, load), settings, started).serve()


class Running:
    """A server that can be stopped from another thread.

    Raises:
        InputError: the port is taken.
    """

    def __init__(self, app: FastAPI, settings: Settings, started: Callable[[str], None]) -> None:
        config = Config(app, settings)
        try:
            self._socket = listening(settings.host, settings.port)
        except OSError as error:
            app.state.studio.store.close()
            raise InputError(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose "
                "another --port."
            ) from error
        self._server = _Server(config, app.state.studio.manager, started)

    def serve(self) -> None:
        """Serve calls until `stop`."""
        # Uvicorn re-raises Ctrl-C after an orderly shutdown.
        with self._socket, suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Stop the server, as a signal does."""
        self._server.stop()


class _Server(uvicorn.Server):
    """A uvicorn server that limits its connections, and shuts down gracefully.

    After a signal it still listens, but reports that it is stopping and accepts no new work until
    running pictures are done. Then it ends the event streams of jobs, which never end by
    themselves, and waits for pending responses.
    """

    def __init__(self, config: Config, manager: JobManager, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._settings = config.settings
        self._manager = manager
        self._started = started
        self._since: float | None = None  # time since it has been stopping

    async def startup(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
            self._started(f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}")

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            # The listener retries in a second.
            make_room(self.server_state.connections)
            _log.warning("a connection could not be taken", extra={"reason": error.strerror})
        else:
            _log.error("a task failed", exc_info=error, extra={"reason": context["message"]})

    async def on_tick(self, counter: int) -> bool:
        await super().on_tick(counter)
        now = asyncio.get_running_loop().time()
        look_after(self.server_state.connections, self._settings, now)
        if not self.should_exit:
            return False
        if self._since is None:
            self._since = now
            self._manager.drain()
        waited, notice = now - self._since, self._settings.notice
        if waited >= max(self._settings.drain_seconds, notice):
            return True
        return waited >= notice and self._manager.drained()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._manager.close()
        now = asyncio.get_running_loop().time()
        left = self._settings.drain_seconds - (now - (self._since or now))
        self.config.timeout_graceful_shutdown = max(1, int(left))
        await super().shutdown(sockets)

    def stop(self) -> None:
        self.should_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        for each in HANDLED_SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # a second one ends the process at once
        end = threading.Timer(self._settings.stop_seconds, _end)
        end.daemon = True
        end.start()


def _end() -> None:
    """End the process at once. Unfinished pictures are made again after the next start."""
    _log.critical("the server did not stop in time, and was ended")
    os._exit(1)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without an explicit protocol, asyncio leaves Nagle's algorithm on, which delays the body of
    # every response by 40 milliseconds.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name != "nt":  # on Windows it would share a port that another program listens on
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError:
        found.close()
        raise
    return found


class _App(FastAPI):
    """An application whose document has the events of its streams, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            if not scope.get(_TOLD):  # else the server around it would log it again
                raise

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi_schema.completed(super().openapi())
        return self.openapi_schema


def _loads(settings: Settings, load: Load | Mapping[str, Load] | None) -> Mapping[str, Load]:
    """What loads the models, by their ids."""
    if isinstance(load, Mapping):
        return load
    refs: Sequence[str | None] = settings.models or (None,)
    names = lineup.names(refs)
    if load is not None:
        return {names[0]: load}
    return {name: partial(_load, settings, ref) for name, ref in zip(names, refs, strict=True)}


def _load(settings: Settings, ref: str | None) -> Model:
    model = pipeline.load(ref, dtype=settings.dtype, device=settings.device)
    return remote.moved(model, settings.network_seconds)


async def _clean(settings: Settings, store: Store) -> None:
    while True:
        try:
            gone = await asyncio.to_thread(
                store.purge,
                undo=settings.undo_seconds,
                passing=settings.passing_seconds,
                uploads=settings.upload_seconds,
                gallery=settings.gallery_seconds,
                records=_RECORDS_KEPT,
            )
        except (OSError, sqlite3.Error):
            _log.exception("old files could not be removed")
        else:
            if gone:
                _log.info("cleaned", extra={"files": gone})
        await asyncio.sleep(_HOUR / 4)


_operations = APIRouter(tags=["operations"])


@_operations.head("/health", include_in_schema=False)
@_operations.get("/health", responses=openapi_schema.answers(openapi_schema.Health))
async def _health() -> dict[str, str]:
    """Whether the process responds."""
    return {"status": "ok"}


@_operations.head("/ready", include_in_schema=False)
@_operations.get(
    "/ready",
    responses={
        **openapi_schema.answers(openapi_schema.Health),
        **openapi_schema.answers(openapi_schema.Health, 503),
    },
)
async def _ready(studio: Here) -> JSONResponse:
    """Whether the first model is loaded and warm, and the networks of all models respond."""
    manager = studio.manager
    if manager.stopping:
        state = "stopping"
    elif manager.first.failure is not None:
        state = "failed"
    elif not manager.ready:
        state = "loading"
    elif not manager.alive:
        state = "restarting"
    else:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": state}, 503, headers={"Retry-After": "1"})


@_operations.get("/metrics", response_class=Response, responses=openapi_schema.files("text/plain"))
async def _metrics(studio: Here) -> Response:
    """Numbers for Prometheus."""
    return Response(studio.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _docs(request: Request) -> HTMLResponse:
    """A page about the API, without scripts; for programs there is /openapi.json."""
    schema: dict[str, Any] = request.app.openapi()
    rows = "".join(
        f"<dt><code>{method.upper()} {html.escape(path)}</code></dt>"
        f"<dd>{html.escape(str(call.get('description', '')))}</dd>"
        for path, calls in schema["paths"].items()
        for method, call in calls.items()
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>asymflow API</title>'
        f'<h1>asymflow {__version__}</h1><p>For programs: <a href="/openapi.json">openapi.json</a>.'
        f"</p><dl>{rows}</dl></html>"
    )


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    path = request.url.path
    return JSONResponse(
        envelope(error.problem, path), error.status, headers=headers_of(error, path)
    )


async def _wrong(request: Request, error: Exception) -> JSONResponse:
    problem = ProblemDetail(str(error), code="invalid_value")
    if isinstance(error, Refusal):
        problem = error.problem
    return JSONResponse(envelope(problem, request.url.path), 400)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | ValidationError)
    path = request.url.path
    if path.startswith(WEBUI):
        found: list[Any] = [
            {key: each[key] for key in ("loc", "msg", "type")} for each in error.errors()
        ]
        return JSONResponse({"detail": found}, 422)
    first: Any = error.errors()[0]
    if first["type"] == "json_invalid":
        place = f"{first['ctx']['error']}, at character {first['loc'][-1]}"
        problem = ProblemDetail(f"The body is no JSON: {place}.", code="json_invalid")
        return JSONResponse(envelope(problem, path), 400)
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "header", "path")]
    param = ".".join(where) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    text = message if param is None else f"{param}: {message}."
    problem = ProblemDetail(text, param=param, code=str(first["type"]))
    return JSONResponse(envelope(problem, path), 400)


async def _unwritten(request: Request, error: Exception) -> JSONResponse:
    if not disk_is_full(error):
        return await _broken(request, error)
    return await _refused(request, ApiError(507, NO_ROOM, code="disk_full"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    cause = error.__cause__  # cause of an error while FastAPI read the body
    if isinstance(cause, ApiError):
        return await _refused(request, cause)
    if isinstance(cause, ValueError | RecursionError):
        why = "it is nested too deeply" if isinstance(cause, RecursionError) else str(cause)
        problem = ProblemDetail(f"The body is not valid JSON: {why}.", code="json_invalid")
        return JSONResponse(envelope(problem, request.url.path), 400)
    if error.status_code == 404 and request.url.path == "/":
        return PlainTextResponse(
            "The front end is not built: run scripts/web, or use the API, see /docs.", 404
        )
    codes = {404: "not_found", 405: "method_not_allowed"}
    detail = f"{error.detail}: {request.method} {request.url.path[:100]}. See /docs."
    problem = ProblemDetail(detail, code=codes.get(error.status_code))
    body = envelope(problem, request.url.path)
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _hung_up(request: Request, error: Exception) -> Response:
    """The response after a client disconnected, for the log only; it is not an error."""
    del request, error
    return Response(status_code=499)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    request.scope[_TOLD] = True
    _log.error("a call failed", exc_info=error, extra={"path": request.url.path})
    problem = ProblemDetail(
        "Something went wrong in the server. Its log says what.",
        "server_error",
        code="internal_error",
    )
    return JSONResponse(envelope(problem, request.url.path), 500)
