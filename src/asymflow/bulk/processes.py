"""Processes of this machine that make pictures: started, fed, and replaced when they are lost.

Each is joined to this process by a pipe of its own, so that one that is killed at any moment takes
no lock with it. It ends when the pipe does.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from asymflow.bulk.pictures import Settings
from asymflow.bulk.pool import Duties, Event, Maker, Refused, Worker
from asymflow.bulk.rows import Row
from asymflow.core.errors import AsymflowError, InputError


@dataclass(slots=True, eq=False, kw_only=True)
class _Process(Worker):
    """A process, as this one sees it."""

    process: Any
    pipe: Connection
    settings: Settings


class Processes:
    """A pool of processes.

    Args:
        settings: of each process; there are as many as settings.
    """

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self.duties: Duties[_Process] = Duties(_send)
        self.duties.workers += [self._start(each) for each in settings]

    def events(self, seconds: float) -> Iterator[Event]:
        pipes = {worker.pipe: worker for worker in self.duties.workers}
        for pipe in wait(list(pipes), seconds):
            worker = pipes[pipe]  # pyright: ignore[reportArgumentType]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
            else:
                yield from self.duties.heard(worker, message)

    def close(self) -> None:
        for worker in self.duties.workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self.duties.workers:
            worker.process.join()
            worker.process.close()
        self.duties.workers.clear()

    def _start(self, settings: Settings) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(settings, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Process(process=process, pipe=ours, settings=settings)

    def _bury(self, worker: _Process) -> Iterator[Event]:
        """Replace a process that is gone."""
        worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        yield from self.duties.bury(worker, _ended(code))
        self.duties.workers.append(self._start(worker.settings))


def _send(worker: _Process, rows: list[Row]) -> None:
    with suppress(OSError):  # it is lost: `events` finds out, and gives the rows to others
        worker.pipe.send(rows)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _serve(settings: Settings, pipe: Connection) -> None:
    """A process: rows come in, pictures go out, until the pipe ends."""
    # Ctrl-C goes to all processes of a terminal, and the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    chunks = _received(pipe)
    try:
        try:
            maker = Maker(settings)
        except (AsymflowError, OSError) as error:
            known = error if isinstance(error, AsymflowError) else InputError(str(error))
            pipe.send(Refused(known))
            return
        for message in maker.begin():
            pipe.send(message)
        while True:
            for message in maker.make(chunks.get()):
                pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _received(pipe: Connection) -> queue.SimpleQueue[list[Row]]:
    """What comes in, read by a thread: the parent never waits for this process to read."""
    chunks: queue.SimpleQueue[list[Row]] = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                chunks.put(pipe.recv())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone, and so is everybody who could be told

    threading.Thread(target=read, daemon=True).start()
    return chunks
