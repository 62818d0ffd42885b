"""Supervises a child process that handles requests.

It is restarted when it ends, does not respond, or could not be started, with exponential back-off.
Callers wait for the response, or get an error if the process was lost before.

A message is its length in 8 bytes, then its bytes. The process sends an empty one as soon as it is
ready, and responds to an empty one (a ping) with an empty one: so a process that hangs is noticed
also without requests.
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
"""Maximal bytes of a message; a larger length is an error."""
_PIPE = 2**20
"""Buffer size of a pipe, where it can be set: larger than a request."""
_PING = 10.0
"""Seconds without a request after which the process is pinged."""
_TICK = 0.5
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_END = 2.0
"""Seconds to wait for a process to end by itself."""
_log = logging.getLogger("asymflow.server")

Memory = TypeVar("Memory")


class Lost(Exception):
    """The process ended before it responded, or there is none.

    Attributes:
        memory: whether the system killed it for lack of memory.
    """

    def __init__(self, message: str, *, memory: bool = False) -> None:
        super().__init__(message)
        self.memory = memory


@dataclass(slots=True, eq=False)
class _Request:
    """A request; `response` stays None if the process ended before."""

    done: threading.Event = field(default_factory=threading.Event)
    response: bytes | None = None
    responded: float = 0.0


class _Process(Generic[Memory]):
    """One process, its pending requests, and the state cached in it.

    Raises:
        OSError, RuntimeError, MemoryError: it cannot be started; nothing is left of the attempt.
    """

    def __init__(
        self, command: Sequence[str], memory: Memory, started: Callable[[_Process[Memory]], None]
    ) -> None:
        self.memory = memory
        self.received = 0
        """Number of messages from it, the first of which means that it is ready."""
        self.ended = threading.Event()
        self.reason = ""
        """The reason, if it is killed here."""
        self._started = started
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._pending: deque[_Request] = deque()
        self._reclaimed = _reclaimed()
        self._last: _Request | None = None
        # Popen would leave its own pipes open if it failed between two of them.
        with ExitStack() as undo, ExitStack() as its_ends:
            its_in, self._input = _pipe(its_ends, undo)
            self._output, its_out = _pipe(undo, its_ends)
            self.process = subprocess.Popen(command, stdin=its_in, stdout=its_out)
            undo.callback(self._discard)
            threading.Thread(target=self._receive, name="asymflow-network", daemon=True).start()
            undo.pop_all()

    def _discard(self) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, compose: Callable[[Memory], bytes]) -> tuple[_Request, _Request | None] | None:
        """Send a request; return it and the one before it, or None if the process has ended."""
        request = _Request()
        with self._sending:
            try:
                message = compose(self.memory)
            except BaseException:
                # Its cached state is unknown now.
                self.kill("could not be sent a request and was ended")
                raise
            with self._lock:
                if self.ended.is_set():
                    return None
                self._pending.append(request)
                before, self._last = self._last, request
            with suppress(OSError, ValueError):  # it has ended, which the reader will notice
                write(self._input, message)
        return request, before

    def ping(self) -> None:
        """Send a ping, if no request is pending."""
        if not self.waiting and not self._sending.locked():
            self.send(lambda memory: b"")

    @property
    def waiting(self) -> int:
        """Requests without a response."""
        return len(self._pending)

    def _receive(self) -> None:
        try:
            while (message := read(self._output)) is not None:
                self.received += 1
                if self.received == 1:
                    self._started(self)
                    continue
                with self._lock:
                    request = self._pending.popleft()
                request.response = message
                request.responded = time.perf_counter()
                request.done.set()
        except (OSError, ValueError, MemoryError, IndexError) as error:
            self.reason = self.reason or f"sent an invalid response ({error!r})"
        self.process.kill()  # it may have closed its output only
        self.process.wait()
        with self._lock:
            self.ended.set()
            left = list(self._pending)
            self._pending.clear()
        for request in left:
            request.responded = time.perf_counter()
            request.done.set()
        with self._sending:  # no writer is active
            for stream in (self._input, self._output):
                with suppress(OSError):
                    stream.close()

    def kill(self, reason: str) -> None:
        """End it at once."""
        self.reason = reason
        self.process.kill()

    def close(self) -> None:
        """Close its input, and kill it if it does not end."""
        if self._sending.acquire(timeout=_END):
            try:
                with suppress(OSError, ValueError):
                    self._input.close()
            finally:
                self._sending.release()
        if not self.ended.wait(_END):
            self.kill("did not end")
        self.ended.wait()

    def lost(self) -> Lost:
        """The error that describes why it ended."""
        code = self.process.returncode
        if self.reason:
            return Lost(f"The process of the network {self.reason}.")
        if code is None or code >= 0:
            return Lost(f"The process of the network ended with {code}; see above.")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = name == "SIGKILL" and _reclaimed() > self._reclaimed
        return Lost(f"The process of the network was ended by {name}.", memory=memory)


class Supervised(Generic[Memory]):
    """A process that is restarted whenever it is lost. Thread-safe.

    A request is sent while the one before is processed, so that the process need not wait for it.

    Args:
        command: that starts it.
        memory: creates the record of the state cached in a new process.
        answer_seconds: time limit for a response; `start_seconds` is that for the start.
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
        """Number of lost processes and failed starts."""
        self.changed: Callable[[], None] = lambda: None
        """Callback, from any thread, when `live` may have changed."""
        self._watcher = threading.Thread(target=self._run, name="asymflow-watcher", daemon=True)
        self._watcher.start()

    @property
    def live(self) -> bool:
        """Whether there is a process that is ready."""
        return self._ready() is not None

    @property
    def pid(self) -> int | None:
        """The id of the process that is ready."""
        process = self._ready()
        return None if process is None else process.process.pid

    @property
    def waiting(self) -> int:
        """Requests without a response."""
        process = self._ready()
        return 0 if process is None else process.waiting

    def request(self, compose: Callable[[Memory], bytes]) -> bytes:
        """Send a request and return the response.

        Args:
            compose: writes the request, given the state cached in the process, and updates that.

        Raises:
            Lost: the process ended before it responded, or none could be started in time.
        """
        while True:
            process = self._awaited()
            since = time.perf_counter()
            if (sent := process.send(compose)) is not None:
                break
        request, before = sent
        request.done.wait()
        free = since if before is None else max(since, before.responded)
        self._local.waited = free - since
        if request.response is None:
            raise process.lost()
        return request.response

    def _ready(self) -> _Process[Memory] | None:
        process = self._process
        return None if process is None or process.ended.is_set() else process

    def _awaited(self) -> _Process[Memory]:
        """Wait for a process that is ready.

        Raises:
            Lost: none can be started in time.
        """
        with self._change:
            self._change.wait_for(
                lambda: self._ready() is not None or self._closing.is_set(), self._limits[0]
            )
            process = self._ready()
        if process is None or self._closing.is_set():
            raise Lost("The process of the network cannot be started; the log says why.")
        return process

    def waited(self) -> float:
        """Seconds that this thread's last request waited for that of another thread."""
        return getattr(self._local, "waited", 0.0)

    def close(self) -> None:
        """End the process without a restart."""
        self._closing.set()
        with self._change:
            self._change.notify_all()
        self._watcher.join()

    def abort(self) -> None:
        """Kill the process, also with pending requests, without a restart."""
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
                reason, failed = str(process.lost()), process.received < 2
            if not self._closing.is_set():
                self.restarts += 1
            self._publish(None)  # also after a failed start, so that metrics count it
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
        """Wait for the end of a process, and kill it if it does not respond."""
        silent = idle = 0.0
        received = 0
        before = time.monotonic()
        while not process.ended.wait(_TICK):
            if self._closing.is_set():
                process.close()
                return
            now = time.monotonic()
            # This process may have been suspended itself, which must not count.
            passed, before = min(now - before, 2 * _TICK), now
            if process.received != received or (received and not process.waiting):
                idle = idle + passed if process.received == received else 0.0
                received, silent = process.received, 0.0
                if idle > _PING:
                    process.ping()
                    idle = 0.0
                continue
            silent += passed
            limit = self._limits[received > 0]
            if silent > limit:
                process.kill(f"did not respond for {limit:g} seconds and was ended")


def end_with_parent() -> None:
    """Called in the child: end with its parent, also while suspended."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def read(stream: IO[bytes]) -> bytes | None:
    """Read the next message; None at the end.

    Raises:
        ValueError: it is invalid.
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
        with suppress(OSError):  # users have a limit; then the buffer stays smaller
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE)
    return reader, writer


def _reclaimed() -> int:
    """Number of processes killed by the system for lack of memory, where it is known."""
    try:
        text = Path("/proc/vmstat").read_text("ascii")
    except OSError:
        return 0
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0
