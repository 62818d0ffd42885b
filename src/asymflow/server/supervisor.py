"""A process that answers questions, and is watched.

It is started again when it ends, when it does not answer, and when it could not be started, after a
pause that grows while that does not help. Whoever asks waits for the answer, or hears that the
process was lost before it could give one.

A message is its length in 8 bytes, then its bytes. The process says an empty one as soon as it can
answer, and answers an empty one with an empty one: so a process that hangs is noticed while nobody
asks anything, too.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, TypeVar

if sys.platform == "linux":
    import fcntl

_LENGTH = struct.Struct("<Q")
_LONGEST = 2**32
"""Bytes of a message. What claims to be longer is none."""
_PIPE = 2**20
"""Bytes on their way, where the system lets one choose: more than a question has."""
_PING = 10.0
"""Seconds without a question after which the process is asked for a sign of life."""
_TICK = 0.5
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_END = 2.0
"""Seconds that a process may take to end by itself."""
_log = logging.getLogger("asymflow.server")

Memory = TypeVar("Memory")


class Lost(Exception):
    """The process ended before it answered, or there is none.

    Attributes:
        memory: the system took its memory back.
    """

    def __init__(self, message: str, *, memory: bool = False) -> None:
        super().__init__(message)
        self.memory = memory


@dataclass(slots=True, eq=False)
class _Question:
    """What was asked; `answer` stays None where the process ended before."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: bytes | None = None
    answered: float = 0.0


class _Process(Generic[Memory]):
    """One process, what it was asked, and what it remembers.

    Raises:
        OSError, RuntimeError, MemoryError: it cannot be started; nothing is left of the attempt.
    """

    def __init__(
        self, command: Sequence[str], memory: Memory, greeted: Callable[[_Process[Memory]], None]
    ) -> None:
        self.memory = memory
        self.heard = 0
        """Messages that came from it, the first of which says that it can answer."""
        self.ended = threading.Event()
        self.complaint = ""
        """Why it is killed, where that is done here."""
        self._greeted = greeted
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._pending: deque[_Question] = deque()
        self._reclaimed = _reclaimed()
        self._last: _Question | None = None
        # Popen would leave its own pipes open where it fails between two of them.
        with ExitStack() as undo, ExitStack() as its_ends:
            its_in, self._asked = _pipe(its_ends, undo)
            self._told, its_out = _pipe(undo, its_ends)
            self.process = subprocess.Popen(command, stdin=its_in, stdout=its_out)
            undo.callback(self._discard)
            threading.Thread(target=self._listen, name="asymflow-network", daemon=True).start()
            undo.pop_all()

    def _discard(self) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, compose: Callable[[Memory], bytes]) -> tuple[_Question, _Question | None] | None:
        """Ask; the question, and the one before it. None where it has ended."""
        question = _Question()
        with self._sending:
            try:
                message = compose(self.memory)
            except BaseException:
                # What is noted as told to it may not have been.
                self.kill("could not be asked and was ended")
                raise
            with self._lock:
                if self.ended.is_set():
                    return None
                self._pending.append(question)
                before, self._last = self._last, question
            with suppress(OSError, ValueError):  # it has ended, which the listener will notice
                write(self._asked, message)
        return question, before

    def ping(self) -> None:
        """Ask for a sign of life, if nothing else is being asked."""
        if not self.waiting and not self._sending.locked():
            self.send(lambda memory: b"")

    @property
    def waiting(self) -> int:
        """Questions that are not answered yet."""
        return len(self._pending)

    def _listen(self) -> None:
        try:
            while (message := read(self._told)) is not None:
                self.heard += 1
                if self.heard == 1:
                    self._greeted(self)
                    continue
                with self._lock:
                    question = self._pending.popleft()
                question.answer = message
                question.answered = time.perf_counter()
                question.done.set()
        except (OSError, ValueError, MemoryError, IndexError) as error:
            self.complaint = self.complaint or f"said what is no answer ({error!r})"
        self.process.kill()  # it may have closed its output only
        self.process.wait()
        with self._lock:
            self.ended.set()
            left = list(self._pending)
            self._pending.clear()
        for question in left:
            question.answered = time.perf_counter()
            question.done.set()
        with self._sending:  # nobody writes any more
            for stream in (self._asked, self._told):
                with suppress(OSError):
                    stream.close()

    def kill(self, complaint: str) -> None:
        """End it at once."""
        self.complaint = complaint
        self.process.kill()

    def close(self) -> None:
        """Ask it to end, and end it where it does not listen."""
        if self._sending.acquire(timeout=_END):
            try:
                with suppress(OSError, ValueError):
                    self._asked.close()
            finally:
                self._sending.release()
        if not self.ended.wait(_END):
            self.kill("did not end")
        self.ended.wait()

    def lost(self) -> Lost:
        """Why it is no more."""
        code = self.process.returncode
        if self.complaint:
            return Lost(f"The process of the network {self.complaint}.")
        if code is None or code >= 0:
            return Lost(f"The process of the network ended with {code}; see above.")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = name == "SIGKILL" and _reclaimed() > self._reclaimed
        return Lost(f"The process of the network was ended by {name}.", memory=memory)


class Supervised(Generic[Memory]):
    """A process that is always there again. Threads may share it.

    A question is sent while the one before is answered, so that the process need not wait for it.

    Args:
        command: that starts it.
        memory: makes what is remembered of what a new process knows.
        answer_seconds: after which a process that does not answer is ended, and `start_seconds`
            after which one that cannot answer yet.
    """

    def __init__(
        self,
        command: Sequence[str],
        memory: Callable[[], Memory],
        *,
        answer_seconds: float,
        start_seconds: float,
    ) -> None:
        self._command = tuple(command)
        self._memory = memory
        self._limits = start_seconds, answer_seconds
        self._change = threading.Condition()
        self._process: _Process[Memory] | None = None
        self._local = threading.local()
        self._closing = threading.Event()
        self.restarts = 0
        """Processes that were lost, and attempts to start one that failed."""
        self.changed: Callable[[], None] = lambda: None
        """Is called, by any thread, when `live` may have changed."""
        self._watcher = threading.Thread(target=self._run, name="asymflow-watcher", daemon=True)
        self._watcher.start()

    @property
    def live(self) -> bool:
        """Whether there is a process that can answer."""
        return self._answering() is not None

    @property
    def pid(self) -> int | None:
        """Of the process that can answer."""
        process = self._answering()
        return None if process is None else process.process.pid

    @property
    def waiting(self) -> int:
        """Questions that are not answered yet."""
        process = self._answering()
        return 0 if process is None else process.waiting

    def ask(self, compose: Callable[[Memory], bytes]) -> bytes:
        """The answer to a question.

        Args:
            compose: writes it, given what the process remembers, and notes there what it says.

        Raises:
            Lost: the process ended before it answered, or none could be started in time.
        """
        while True:
            process = self._awaited()
            since = time.perf_counter()
            if (sent := process.send(compose)) is not None:
                break
        question, before = sent
        question.done.wait()
        free = since if before is None else max(since, before.answered)
        self._local.waited = free - since
        if question.answer is None:
            raise process.lost()
        return question.answer

    def _answering(self) -> _Process[Memory] | None:
        process = self._process
        return None if process is None or process.ended.is_set() else process

    def _awaited(self) -> _Process[Memory]:
        """A process that can answer, as soon as there is one.

        Raises:
            Lost: none can be started in time.
        """
        with self._change:
            self._change.wait_for(
                lambda: self._answering() is not None or self._closing.is_set(), self._limits[0]
            )
            process = self._answering()
        if process is None or self._closing.is_set():
            raise Lost("The process of the network cannot be started; the log says why.")
        return process

    def waited(self) -> float:
        """Seconds that this thread's last question waited for that of another."""
        return getattr(self._local, "waited", 0.0)

    def close(self) -> None:
        """End the process, and start no other."""
        self._closing.set()
        with self._change:
            self._change.notify_all()
        self._watcher.join()

    def abort(self) -> None:
        """End the process at once, whoever waits for its answer, and start no other."""
        self._closing.set()
        with self._change:
            self._change.notify_all()
            if self._process is not None:
                self._process.kill("was ended with the server")

    def _run(self) -> None:
        failures = 0
        pause = 0.0
        while not self._closing.wait(pause):
            try:
                process = _Process(self._command, self._memory(), self._publish)
            except (OSError, RuntimeError, MemoryError) as error:
                reason, failed = f"The process of the network cannot be started: {error}.", True
            else:
                self._watch(process)
                reason, failed = str(process.lost()), process.heard < 2
            if not self._closing.is_set():
                self.restarts += 1
            self._publish(None)  # also after a failed start: whoever counts them is told
            if self._closing.is_set():
                return
            failures = failures + 1 if failed else 0
            pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**failures) if failures else 0.0
            _log.error("the network is started again", extra={"reason": reason, "pause_s": pause})

    def _publish(self, process: _Process[Memory] | None) -> None:
        with self._change:
            self._process = process
            self._change.notify_all()
        self.changed()

    def _watch(self, process: _Process[Memory]) -> None:
        """Wait for the end of a process, and bring it about where it does not answer."""
        silent = idle = 0.0
        heard = 0
        before = time.monotonic()
        while not process.ended.wait(_TICK):
            if self._closing.is_set():
                process.close()
                return
            now = time.monotonic()
            # This process may have been stopped itself, which is not the other one's fault.
            passed, before = min(now - before, 2 * _TICK), now
            if process.heard != heard or (heard and not process.waiting):
                idle = idle + passed if process.heard == heard else 0.0
                heard, silent = process.heard, 0.0
                if idle > _PING:
                    process.ping()
                    idle = 0.0
                continue
            silent += passed
            limit = self._limits[heard > 0]
            if silent > limit:
                process.kill(f"gave no sign of life for {limit:g} seconds and was ended")


def end_with_parent() -> None:
    """In the process: be ended with the one that started it, also while this one is stopped."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def read(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end.

    Raises:
        ValueError: it is none.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    [length] = _LENGTH.unpack(head)
    if length > _LONGEST:
        raise ValueError(f"{length} bytes are more than a message has.")
    message = stream.read(length)
    return message if len(message) == length else None


def write(stream: IO[bytes], message: bytes) -> None:
    """Send a message."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Both ends of a new pipe, which these stacks close."""
    out, into = os.pipe()
    reader = reading.enter_context(os.fdopen(out, "rb"))
    writer = writing.enter_context(os.fdopen(into, "wb"))
    if sys.platform == "linux":
        with suppress(OSError):  # users have a limit; then it is a smaller one
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE)
    return reader, writer


def _reclaimed() -> int:
    """How often the system has ended a process to take its memory back, where it says so."""
    try:
        text = Path("/proc/vmstat").read_text("ascii")
    except OSError:
        return 0
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0
