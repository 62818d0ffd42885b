"""The parts of a server, as dependencies of endpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from asymflow.server.clients import OPERATOR, Client
from asymflow.server.lineup import About, Served
from asymflow.server.manager import JobManager
from asymflow.server.metrics import Metrics
from asymflow.server.problems import ApiError
from asymflow.server.settings import Settings
from asymflow.server.store import PictureRow, Store
from asymflow.server.tokens import HELD, Tokens
from asymflow.server.workshop import Caller, Workshop

_PATIENCE = 60.0
"""Seconds that a call waits while its model is being loaded for the first time."""


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """The parts of a server that all calls share."""

    settings: Settings
    store: Store
    manager: JobManager
    metrics: Metrics
    workshop: Workshop
    tokens: Tokens


def studio_of(request: Request) -> Studio:
    """The parts of the server that a call came to."""
    studio: Studio = request.app.state.studio
    return studio


Here = Annotated[Studio, Depends(studio_of)]


async def about_of(studio: Studio, id: str | None) -> tuple[Served, About]:
    """A model by its id, and what is known of it, as soon as it has been loaded once.

    Raises:
        ApiError: there is none of that id, it takes too long, or it cannot be loaded.
    """
    manager = studio.manager
    served = manager.served(id)
    manager.ask(served)
    until = time.monotonic() + _PATIENCE
    with manager.opened.listen() as listener:
        while served.about is None and served.failure is None and not manager.closing:
            if not await listener.wait(until - time.monotonic()):
                break
    return served, manager.about(served)


def client_of(request: Request) -> Client:
    """The client of a call."""
    tokens, held = studio_of(request).tokens, request.scope.get(HELD)
    address = request.client.host if request.client is not None else "?"
    tab = request.headers.get("x-client", "")[:64]
    if held is None:
        return Client(address=address, tab=tab)
    return Client(held.name, address, tab, partial(tokens.holds, held))


Calls = Annotated[Client, Depends(client_of)]


def caller_of(request: Request) -> Caller:
    """The caller of some work: its client, and its address since headers can be forged.

    Behind a proxy many callers may have one address, so uploads and downloads are at least separate
    callers.
    """
    return Caller(f"{client_of(request).name} {request.method}", request.is_disconnected)


Calling = Annotated[Caller, Depends(caller_of)]


def operator_of(client: Calls) -> Client:
    """The operator of the server.

    Raises:
        ApiError: the call comes from somebody else.
    """
    if client.owner != OPERATOR:
        raise ApiError(403, "Only the operator of this server may do that.", code="operators_only")
    return client


Operator = Annotated[Client, Depends(operator_of)]


def picture_of(studio: Studio, client: Client, id: str) -> PictureRow:
    """A picture of the client.

    Raises:
        ApiError: there is none of that id, or it is somebody else's.
    """
    row = studio.store.picture(id)
    if row is None or row.owner != client.owner:
        raise nothing("picture", id)
    return row


def nothing(kind: str, id: str) -> ApiError:
    """That there is no such picture, job or upload."""
    return ApiError(404, f"There is no {kind} {id[:64]!r}.", param="id", code="not_found")


async def body_of(request: Request) -> bytes:
    """The raw body; the middlewares have limited it."""
    return await request.body()


Body = Annotated[bytes, Depends(body_of)]
