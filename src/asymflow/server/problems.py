"""Error responses: always the same envelope, which OpenAI's clients understand."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict

from asymflow.core.errors import InputError

_FINER = frozenset(
    "empty_prompt impossible_size no_class no_record no_references not_supported picture_too_large "
    "prompt_too_long too_many_combinations unknown_class unknown_quality unknown_style "
    "unreadable_picture".split()
)
"""Codes that clients of OpenAI's API know as "invalid_value"."""
Values = dict[str, str | int | float]

CODES: Mapping[str, str] = MappingProxyType(
    {
        "ambiguous_length": "A call says in two ways where it ends.",
        "cancelled": "The pictures were cancelled.",
        "cannot_measure": "The server cannot measure models.",
        "damaged_file": "A file of the server is damaged.",
        "disk_full": "The disk is full, or has only `free_mb` left where `spare_mb` stay free.",
        "empty_prompt": "There is nothing to draw.",
        "idempotency_conflict": "The key was used for another request.",
        "impossible_size": "The model cannot draw `width` x `height`.",
        "internal_error": "Something went wrong in the server; its log says what.",
        "invalid_mask": "The mask cannot be read, or does not say what to repaint.",
        "invalid_token": "A token is missing or wrong.",
        "invalid_value": "Another value that is not possible; `param` names it.",
        "json_invalid": "The body is no JSON.",
        "loading": "The model is being loaded.",
        "method_not_allowed": "There is such a call, but not with this method.",
        "model_failed": "The model could not be loaded.",
        "model_not_found": "There is no such model.",
        "network_lost": "The process of the network was lost.",
        "no_class": "The model is asked with one of its `classes`, and there is none.",
        "no_record": "The picture does not say how it was made.",
        "no_references": "The model looks at no references, so it draws no picture again.",
        "no_text": "A form is in another charset than it says.",
        "not_finite": "The model returned numbers that are none.",
        "not_flat": "The picture is no flat drawing, which alone have an SVG.",
        "not_found": "There is no such thing, or not any more; `param` says in what field.",
        "not_inpainted": "The picture was not painted into another one.",
        "not_supported": "The model cannot do what `param` asks for.",
        "operators_only": "Only the operator may do that.",
        "other_version": "A stored job has fields of another version.",
        "out_of_memory": "There is not enough memory.",
        "picture_too_large": "A picture has more pixels than the limit of `limit`.",
        "prompt_too_long": "A prompt has `characters`, and `limit` are the most.",
        "queue_full": "The queue is full, with `waiting` pictures.",
        "rate_limit_exceeded": "More than `rate` calls per second.",
        "stopping": "The server is stopping.",
        "timeout": "A picture, or its time in the queue, took more than `seconds`.",
        "too_busy": "Too much is being done at a time.",
        "too_long": "A body or a picture has more than `limit` bytes.",
        "too_many_combinations": "A prompt has `count` combinations, and `limit` are the most.",
        "too_many_jobs": "`waiting` pictures of this client wait, and `limit` are the most.",
        "too_many_wrong_tokens": "Many wrong tokens came from this address.",
        "too_slow": "A call comes too slowly.",
        "unknown_class": "The model has no such class.",
        "unknown_quality": "The model has no plan `quality`.",
        "unknown_style": "The model has no style `style`.",
        "unreadable_picture": "A file is no picture of a known kind, or damaged.",
        "unsupported_media_type": "The call takes `kinds` only.",
        "unusable": "A picture cannot be made from what was sent.",
        "wrong_host": "The server is not called `host`.",
        "wrong_origin": "The call comes from a page of another server.",
    }
)
"""What a failed call may have as its code, and the values that its problem has."""


@dataclass(frozen=True, slots=True)
class ProblemDetail:
    """The description of an error.

    Attributes:
        message: for people: the value, the cause and what to do.
        type: "invalid_request_error", "rate_limit_error", "server_error", ...
        param: the field that caused it.
        code: for programs, one of `CODES` or the type of an error of pydantic.
        values: what the message says of this case, so that it can be told in another language.
    """

    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True)

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    values: Values = field(default_factory=lambda: Values())

    def as_json(self) -> dict[str, Any]:
        """The inner part of the envelope, which every client can decode."""
        texts = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {
            **{name: value and _decodable(value) for name, value in texts.items()},
            "values": {
                name: _decodable(value) if isinstance(value, str) else value
                for name, value in self.values.items()
            },
        }


def _decodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Refusal(InputError):
    """An invalid input whose problem has a code of its own."""

    def __init__(self, message: str, code: str, **values: str | int | float) -> None:
        super().__init__(message)
        assert code in CODES, code
        self.problem = ProblemDetail(message, code=code, values=values)

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again from the arguments of Exception, which is the message.
        return type(self), (str(self), self.problem.code), vars(self)


class ApiError(Exception):
    """An error whose response is a problem."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str,
        retry_after: float | None = None,
        values: Mapping[str, str | int | float] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        assert code in CODES, code
        self.status = status
        kind = type or _TYPES.get(status, "invalid_request_error")
        self.problem = ProblemDetail(message, kind, param, code, dict(values))
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
        code=problem.code or "internal_error",
        values=problem.values,
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
    if path.startswith("/v1/") and detail["code"] in _FINER:
        detail["code"] = "invalid_value"
    if path.startswith(WEBUI):
        return {"error": "HTTPException", "detail": detail["message"], "body": "", "errors": ""}
    return {"error": detail}


def headers_of(refusal: ApiError, path: str) -> dict[str, str]:
    """The headers of a failed call: clients of the web UI know passwords only."""
    found = dict(refusal.headers)
    if path.startswith(WEBUI) and "WWW-Authenticate" in found:
        found["WWW-Authenticate"] = "Basic"
    return found
