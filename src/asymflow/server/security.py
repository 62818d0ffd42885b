"""Access control and rate limits: ASGI middlewares around the application.

A server on this machine can be reached by every web page in its browser. So a call must have an
allowed host name (against DNS rebinding), must not come from another site (`Origin`, also "null",
and `Sec-Fetch-Site`), and must have the token if one is set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asymflow.server.bodies import Bodies, too_long
from asymflow.server.manager import JobManager
from asymflow.server.problems import WEBUI, ApiError, envelope, headers_of, stopping
from asymflow.server.settings import Settings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
COOKIE = "asymflow"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_OPEN = ("/health", "/ready")
"""Paths without authentication, which reveal only that the server is running."""
RESULTS = "/v1/images/results/"
"""Files of results, whose names are secrets that expire."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_JSON_BYTES = 1_000_000
_FORM_PICTURES = 5
"""Limit of a form, in multiples of the largest picture."""
_ENCODED = {f"{WEBUI}v1/img2img": 2, f"{WEBUI}v1/png-info": 1}
"""Pictures that a call may have in its JSON, in base64."""
IMAGES = ("image/png", "image/jpeg", "image/webp")
_CLIENTS = 10_000
"""Number of clients whose calls are counted; the least recent ones are dropped."""


class Protected:
    """Middleware that passes permitted calls to the application and refuses others."""

    def __init__(self, app: ASGIApp, settings: Settings, manager: JobManager) -> None:
        self._app = app
        self._settings = settings
        self._manager = manager
        self._buckets = Buckets(settings.rate, settings.burst)
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    found[name] = value
                if not str(scope["path"]).startswith(("/assets/", "/styles/")):
                    found.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check_host(headers)
            _check_origin(headers)
            if await self._welcome(scope, receive, safely):
                return
            self._check_token(scope, headers)
            if self._manager.stopping and scope["method"] not in (*_SAFE, "DELETE"):
                raise stopping()
            limit = self._check_body(scope, headers)
            self._check_rate(scope)
            self._check_calls(scope)
        except ApiError as refusal:
            path = str(scope["path"])
            response = JSONResponse(
                envelope(refusal.problem, path), refusal.status, headers=headers_of(refusal, path)
            )
            await response(scope, receive, safely)
            return
        with self._bodies.one(receive, _address(scope), limit, empty=_empty(headers)) as body:
            await self._app(scope, body.receive, safely)

    def _check_host(self, headers: Headers) -> None:
        allowed = self._settings.allowed_hosts
        if allowed and _name(headers.get("host", "")) not in allowed:
            raise ApiError(
                403,
                f"This server is not called {headers.get('host', '')[:100]!r}. If that is your "
                "name for it, start it with --allow-host.",
                code="wrong_host",
            )

    async def _welcome(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Exchange the token in a browser's address for a cookie."""
        token = self._settings.token
        if token is None or scope["path"] != "/" or scope["method"] != "GET":
            return False
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if "token" not in query:
            return False
        if not _same(query["token"][0], token):
            response = PlainTextResponse("This is not the token of this server.", 401)
        else:
            response = RedirectResponse("/", 303)
            response.set_cookie(
                COOKIE, _cookie(token), max_age=30 * 86400, httponly=True, samesite="lax", path="/"
            )
        await response(scope, receive, send)
        return True

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        token = self._settings.token
        path = str(scope["path"])
        if token is None or path in _OPEN or path.startswith(RESULTS):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), token):
            return
        if path.startswith(WEBUI) and scheme.lower() == "basic" and _same(_password(given), token):
            return
        if _same(_cookie_of(headers), _cookie(token)):
            return
        raise ApiError(
            401,
            "This server needs its token. Send `Authorization: Bearer TOKEN`, or open "
            "/?token=TOKEN in a browser.",
            code="invalid_token",
        )

    def _check_body(self, scope: Scope, headers: Headers) -> int:
        """The maximal size of a call's body in bytes.

        Raises:
            ApiError: the announced size is larger, or the media type is wrong.
        """
        if scope["method"] in _SAFE:
            return 0
        path = str(scope["path"])
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        limit, kinds = _JSON_BYTES, ("application/json",)
        if path == "/api/uploads" or path.endswith("/restored"):
            limit, kinds = self._settings.upload_bytes, IMAGES
        elif path == "/api/settings":
            limit, kinds = self._settings.upload_bytes, (*IMAGES, "application/octet-stream")
        elif path in _ENCODED:
            limit += _ENCODED[path] * self._settings.upload_bytes * 4 // 3
        elif path == "/v1/images/edits":
            limit, kinds = _FORM_PICTURES * self._settings.upload_bytes, ("multipart/form-data",)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_long(limit)
        if kind not in kinds and not (_empty(headers) and not kind):
            raise ApiError(
                415,
                f"This call takes {' or '.join(kinds)}, not {kind[:60]!r}. Send that as its "
                "Content-Type.",
                code="unsupported_media_type",
            )
        return limit

    def _check_calls(self, scope: Scope) -> None:
        """Limit concurrent calls to half of the connections; the rest is for further clients."""
        calls = self._bodies.complete()
        if calls >= self._settings.calls and str(scope["path"]) not in _OPEN:
            raise ApiError(
                503,
                f"{calls} calls are being answered, and more are not taken. Try again in a moment.",
                code="too_busy",
                retry_after=1,
            )

    def _check_rate(self, scope: Scope) -> None:
        if scope["method"] in _SAFE:
            return
        wait = self._buckets.take(_address(scope))
        if wait > 0:
            raise ApiError(
                429,
                f"These are more than {self._settings.rate:g} calls per second. Wait a moment.",
                code="rate_limit_exceeded",
                retry_after=wait,
            )


@dataclass(slots=True)
class Buckets:
    """Token buckets: `rate` calls per second in the long run, and `burst` at once."""

    rate: float
    burst: int
    _left: OrderedDict[str, tuple[float, float]] = field(
        default_factory=lambda: OrderedDict[str, tuple[float, float]]()
    )

    def take(self, key: str) -> float:
        """Count a call; return seconds to wait if it exceeds the rate, else 0."""
        now = time.monotonic()
        left, since = self._left.pop(key, (float(self.burst), now))
        left = min(float(self.burst), left + (now - since) * self.rate)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.rate


def _check_origin(headers: Headers) -> None:
    origin = headers.get("origin")
    foreign = headers.get("sec-fetch-site") == "cross-site" and (
        headers.get("sec-fetch-mode") != "navigate"
    )
    if origin is not None:
        # A proxy may change the scheme, so compare name and port only.
        foreign = foreign or origin.partition("://")[2] != headers.get("host", "")
    if foreign:
        raise ApiError(
            403,
            "Only pages of this server may call it, and this call comes from another one.",
            code="wrong_origin",
        )


def _empty(headers: Headers) -> bool:
    """Whether the headers announce no body."""
    return headers.get("content-length", "0") in ("0", "") and "transfer-encoding" not in headers


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "?"


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _same(given: str, expected: str) -> bool:
    """Compare strings in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _password(given: str) -> str:
    """The password of basic authentication; any user name will do."""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _cookie(token: str) -> str:
    """A cookie value that does not reveal the token: browsers send it to every port of a host."""
    return hmac.new(token.encode(), b"asymflow studio cookie", hashlib.sha256).hexdigest()


def _cookie_of(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
