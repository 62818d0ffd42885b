"""Access control and rate limits: ASGI middlewares around the application.

A server on this machine can be reached by every web page in its browser. So a call must have an
allowed host name (against DNS rebinding), must not come from another site (`Origin`, also "null",
and `Sec-Fetch-Site`), and must have the token if one is set.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asymflow.server.bodies import Bodies, too_long
from asymflow.server.manager import JobManager
from asymflow.server.problems import RESULTS, WEBUI, ApiError, envelope, headers_of, stopping
from asymflow.server.settings import Settings
from asymflow.server.tokens import HELD, Token, Tokens, cookie_of

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
_SAFE = ("GET", "HEAD", "OPTIONS")
_JSON_BYTES = 1_000_000
_FORM_PICTURES = 5
"""Limit of a form, in multiples of the largest picture."""
_ENCODED = {f"{WEBUI}v1/img2img": 2, f"{WEBUI}v1/png-info": 1}
"""Pictures that a call may have in its JSON, in base64."""
IMAGES = ("image/png", "image/jpeg", "image/webp")
_WRONG_RATE, _WRONG_BURST = 1.0, 20
"""Wrong tokens of an address per second, and at once; beyond that it has to wait."""
_CLIENTS = 10_000
"""Number of clients whose calls are counted; the least recent ones are dropped."""


class Protected:
    """Middleware that passes permitted calls to the application and refuses others."""

    def __init__(
        self, app: ASGIApp, settings: Settings, manager: JobManager, tokens: Tokens
    ) -> None:
        self._app = app
        self._settings = settings
        self._manager = manager
        self._tokens = tokens
        self._buckets = Buckets(settings.rate, settings.burst)
        self._wrong = Buckets(_WRONG_RATE, _WRONG_BURST)
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = str(scope["path"])

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    found[name] = value
                if path.startswith(RESULTS):  # pages of other servers may show them
                    found["Cross-Origin-Resource-Policy"] = "cross-origin"
                if not path.startswith(("/assets/", "/styles/")):
                    found.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            _check_framing(headers)
            if path not in _OPEN:  # probes call a container by its address
                self._check_host(headers)
            if not (path.startswith(RESULTS) and scope["method"] in _SAFE):
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
            response = JSONResponse(
                envelope(refusal.problem, path), refusal.status, headers=headers_of(refusal, path)
            )
            await response(scope, receive, safely)
            return
        with self._bodies.one(receive, _who(scope), limit, empty=_empty(headers)) as body:
            await self._app(scope, body.receive, safely)

    def _check_host(self, headers: Headers) -> None:
        allowed = self._settings.allowed_hosts
        if allowed and _name(headers.get("host", "")) not in allowed:
            raise ApiError(
                403,
                f"This server is not called {headers.get('host', '')[:100]!r}. If that is your "
                "name for it, start it with --allow-host.",
                code="wrong_host",
                values={"host": headers.get("host", "")[:100]},
            )

    async def _welcome(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Exchange the token in a browser's address for a cookie."""
        if not self._required or scope["path"] != "/" or scope["method"] != "GET":
            return False
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if "token" not in query:
            return False
        self._check_guesses(scope)
        token = query["token"][0]
        if not self._opens(scope, token):
            self._wrong.take(_address(scope))
            response = PlainTextResponse("This is not a token of this server.", 401)
        else:
            response = RedirectResponse("/", 303)
            response.set_cookie(
                COOKIE,
                cookie_of(token),
                max_age=30 * 86400,
                httponly=True,
                samesite="lax",
                secure=scope.get("scheme") == "https",
                path="/",
            )
        await response(scope, receive, send)
        return True

    @property
    def _required(self) -> bool:
        return self._settings.token is not None or self._tokens.required

    def _opens(self, scope: Scope, token: str) -> bool:
        """Whether a token is valid; if it is somebody's, the call is theirs."""
        if self._settings.token is not None and _same(token, self._settings.token):
            return True
        return _held(scope, self._tokens.find(token))

    def _opens_as_cookie(self, scope: Scope, cookie: str) -> bool:
        if self._settings.token is not None and _same(cookie, cookie_of(self._settings.token)):
            return True
        return _held(scope, self._tokens.find_cookie(cookie))

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        path = str(scope["path"])
        if not self._required or path in _OPEN or path.startswith(RESULTS):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        token = given.strip() if scheme.lower() == "bearer" else ""
        if path.startswith(WEBUI) and scheme.lower() == "basic":
            token = _password(given)
        cookie = _cookie_of(headers)
        if token or cookie:
            self._check_guesses(scope)
        if token and self._opens(scope, token):
            return
        if cookie and self._opens_as_cookie(scope, cookie):
            return
        if token or cookie:
            self._wrong.take(_address(scope))
        raise ApiError(
            401,
            "This server needs its token. Send `Authorization: Bearer TOKEN`, or open "
            "/?token=TOKEN in a browser.",
            code="invalid_token",
        )

    def _check_guesses(self, scope: Scope) -> None:
        """Refuse an address that has sent many wrong tokens."""
        wait = self._wrong.wait(_address(scope))
        if wait > 0:
            raise ApiError(
                429,
                "Too many wrong tokens came from this address. Wait a moment.",
                code="too_many_wrong_tokens",
                retry_after=wait,
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
        right = kind in kinds or (_empty(headers) and not kind)
        if not right and _served(scope):  # what is not there is 404, of whatever kind
            raise ApiError(
                415,
                f"This call takes {' or '.join(kinds)}, not {kind[:60]!r}. Send that as its "
                "Content-Type.",
                code="unsupported_media_type",
                values={"kinds": " ".join(kinds)},
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
        wait = self._buckets.take(_who(scope))
        if wait > 0:
            raise ApiError(
                429,
                f"These are more than {self._settings.rate:g} calls per second. Wait a moment.",
                code="rate_limit_exceeded",
                values={"rate": self._settings.rate},
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

    def wait(self, key: str) -> float:
        """Seconds until a call of this key would be allowed, without counting one."""
        left, since = self._left.get(key, (float(self.burst), 0.0))
        left = min(float(self.burst), left + (time.monotonic() - since) * self.rate)
        return max(0.0, (1 - left) / self.rate)

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


def _check_framing(headers: Headers) -> None:
    """Refuse calls whose end is told in two ways, which proxies may understand in another one."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise ApiError(
            400,
            "A call has both Content-Length and Transfer-Encoding. Send one of them.",
            code="ambiguous_length",
        )


def _served(scope: Scope) -> bool:
    """Whether there is such a call."""
    routes: Iterable[BaseRoute] = scope["app"].router.routes
    return any(
        route.matches(scope)[0] is not Match.NONE
        for route in routes
        if not isinstance(route, Mount)
    )


def _held(scope: Scope, token: Token | None) -> bool:
    if token is not None:
        scope[HELD] = token
    return token is not None


def _who(scope: Scope) -> str:
    """Who is limited: a person by name, and otherwise an address."""
    held: Token | None = scope.get(HELD)
    return _address(scope) if held is None else f"@{held.name}"


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


def _cookie_of(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
