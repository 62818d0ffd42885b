"""Requests encoded once, however often plans are run for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asymflow.core.adapter import Adapter, Context, Wrapped
from asymflow.core.types import Request


class Encoded(Wrapped):
    """An adapter that remembers the contexts of requests: a text encoder runs once for each.

    A request is recognised by its inputs, which are the same object, and by all else that decides
    what it is encoded to.
    """

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self._known: dict[tuple[object, ...], tuple[object, Context, Context]] = {}

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        rows = [self._row(request) for request in requests]
        return (
            {key: torch.cat([cond[key] for cond, _ in rows]) for key in rows[0][0]},
            {key: torch.cat([null[key] for _, null in rows]) for key in rows[0][1]},
        )

    def _row(self, request: Request) -> tuple[Context, Context]:
        key = (id(request.inputs), request.size, request.seed, request.guidance_scale)
        if key not in self._known:
            # The inputs are kept, so that no others get their identity.
            self._known[key] = (request.inputs, *self.inner.encode([request]))
        return self._known[key][1:]
