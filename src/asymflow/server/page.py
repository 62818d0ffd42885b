"""The files of the studio's page: compressed, and cached as long as they are valid."""

from __future__ import annotations

import gzip
import mimetypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

_TEXTS = ("text/", "application/javascript", "application/json", "image/svg")
_LEAST = 1000
"""Bytes from which a file is compressed."""


class Page(StaticFiles):
    """Files with a hash in their name are cached for ever, others revalidated."""

    async def get_response(self, path: str, scope: Any) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)  # no call of an API is there either
        response = await super().get_response(path, scope)
        fixed = path.startswith("assets/")
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if fixed else "no-cache"
        )
        return response

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if not (mimetypes.guess_type(str(full_path))[0] or "").startswith(_TEXTS):
            return response
        response.headers["Vary"] = "Accept-Encoding"
        sent = Headers(scope=scope)
        if (
            not isinstance(response, FileResponse)  # the browser has it already
            or stat_result.st_size < _LEAST
            or "range" in sent
            or not _takes_gzip(sent.get("accept-encoding", ""))
        ):
            return response
        data = _compressed(str(full_path), stat_result.st_mtime_ns, stat_result.st_size)
        headers = {name: response.headers[name] for name in ("etag", "last-modified", "vary")} | {
            "Content-Encoding": "gzip"
        }
        return Response(data, status_code, headers, media_type=response.media_type)


def _takes_gzip(accepted: str) -> bool:
    """Whether a browser takes gzip."""
    for part in accepted.lower().split(","):
        name, _, quality = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


@lru_cache(maxsize=256)
def _compressed(path: str, changed: int, size: int) -> bytes:
    """A file, compressed once for each of its states."""
    del changed, size
    return gzip.compress(Path(path).read_bytes(), 9, mtime=0)
