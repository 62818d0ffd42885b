"""Error responses: always the same envelope, which OpenAI's clients understand."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class ProblemDetail:
    """The description of an error.

    Attributes:
        message: for people: the value, the cause and what to do.
        type: "invalid_request_error", "rate_limit_error", "server_error", ...
        param: the field that caused it.
        code: for programs.
    """

    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True)

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The inner part of the envelope, which every client can decode."""
        return {
            name: value and value.encode("utf-8", "backslashreplace").decode()
            for name, value in asdict(self).items()
        }


class ApiError(Exception):
    """An error whose response is a problem."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = type or _TYPES.get(status, "invalid_request_error")
        self.problem = ProblemDetail(message, kind, param, code)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    507: "server_error",
}

STATUS: Mapping[str, int] = MappingProxyType(
    {
        "unusable": 400,
        "not_found": 404,
        "model_not_found": 404,
        "internal_error": 500,
        "not_finite": 500,
        "cancelled": 503,
        "network_lost": 503,
        "other_version": 503,
        "stopping": 503,
        "out_of_memory": 503,
        "timeout": 503,
        "disk_full": 507,
    }
)
"""HTTP status for calls whose job has failed, by the code of its problem. Only after a 503 does it
make sense to repeat the call."""

NO_ROOM = (
    "The disk is full. Delete pictures, or make room where the server keeps them, and try again."
)


def refused(problem: ProblemDetail) -> ApiError:
    """The error response to a call whose job has failed."""
    status = STATUS.get(problem.code or "", 500)
    return ApiError(
        status,
        problem.message,
        type=problem.type,
        param=problem.param,
        code=problem.code,
        retry_after=5 if status == 503 else None,
    )


def disk_is_full(error: BaseException) -> bool:
    """Whether something could not be written because the disk is full."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def stopping() -> ApiError:
    """The error for calls to a server that is stopping."""
    return ApiError(
        503,
        "The server is stopping, and makes no more pictures. Send the request again in a moment.",
        code="stopping",
        retry_after=5,
    )


RESULTS = "/v1/images/results/"
"""Files of results, whose names are secrets that expire."""
WEBUI = "/sdapi/"
"""Paths of the API of AUTOMATIC1111's web UI, whose errors have another shape."""


def envelope(problem: ProblemDetail, path: str = "") -> dict[str, Any]:
    """The body of a failed call, in the shape of the API that was called."""
    detail = problem.as_json()
    if path.startswith(WEBUI):
        return {"error": "HTTPException", "detail": detail["message"], "body": "", "errors": ""}
    return {"error": detail}


def headers_of(refusal: ApiError, path: str) -> dict[str, str]:
    """The headers of a failed call: clients of the web UI know passwords only."""
    found = dict(refusal.headers)
    if path.startswith(WEBUI) and "WWW-Authenticate" in found:
        found["WWW-Authenticate"] = "Basic"
    return found
