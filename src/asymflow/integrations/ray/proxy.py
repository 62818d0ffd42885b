"""What the proxies of Ray Serve do around the HTTP API: answer calls that are lost with a replica.

It is loaded where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it when a node is started, in
every proxy, so it imports no torch.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asymflow.server.problems import ApiError, envelope, headers_of

AGAIN = 1
"""Seconds after which a call whose replica was lost is tried again."""


class Lost:
    """Says when to try again where Serve would answer a plain 500, or nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def told(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                own = "application/json" in headers.get("content-type", "")
                if message["status"] in (500, 503) and not own:
                    message["status"] = 503
                    headers.setdefault("Retry-After", str(AGAIN))
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception:
            if started:
                raise
        if not started:
            lost = ApiError(
                503,
                "The server was lost with this call. Try again.",
                code="network_lost",
                retry_after=AGAIN,
            )
            path = str(scope["path"])
            response = JSONResponse(
                envelope(lost.problem, path), 503, headers=headers_of(lost, path)
            )
            await response(scope, receive, send)


def middlewares() -> list[Middleware]:
    """For proxies."""
    return [Middleware(Lost)]
