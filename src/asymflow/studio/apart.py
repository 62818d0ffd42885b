"""The network in a process of its own, where nothing else of the server holds it up.

A server answers people while it draws, and Python runs one thread of a process at a time: every
operation of the network would wait for its turn. So on a CPU the network answers in a child, over
its standard input and output. All else stays: the worker walks a plan here, step by step, and asks
there.

A message is its length in 8 bytes, then a safetensors file in memory: asked are "x_t", "t" and the
"number" of a context, with its tensors when it is new; the answer is "x_0", or "error" as bytes of
text.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load, save
from torch import Tensor

from asymflow.adapter import Adapter, Context
from asymflow.adapters import embedded
from asymflow.adapters.embedded import EmbeddedAdapter
from asymflow.generation import Model

_CONTEXTS = 8
"""That both sides remember: two of every picture on its way."""
_LENGTH = struct.Struct("<Q")
_KILLED = -9
"""What a process returns that was ended by SIGKILL, a signal that not every system has."""
_PIPE = 2**20
"""Bytes on their way, where the system lets one choose: more than a question has."""
_TYPES = {
    str(each).removeprefix("torch."): each
    for each in (torch.float32, torch.bfloat16, torch.float16)
}


class _Child:
    """One process, what it has been asked, and what it remembers."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asked: IO[bytes] = self.process.stdin
        self.told: IO[bytes] = self.process.stdout
        self.last = threading.Event()
        """Is set when the answer to the last question has been read."""
        self.last.set()
        self._numbers = count()
        # Contexts are held, so that no other one can have the identity of one that is known.
        self._known: OrderedDict[int, tuple[int, Context]] = OrderedDict()

    def named(self, context: Context) -> dict[str, Tensor]:
        """The number of a context, and all of it when it is new."""
        known = self._known.get(id(context))
        if known is not None:
            self._known.move_to_end(id(context))
            return {"number": torch.tensor(known[0])}
        number = next(self._numbers)
        self._known[id(context)] = number, context
        if len(self._known) > _CONTEXTS:
            self._known.popitem(last=False)
        return {"number": torch.tensor(number)} | {f".{key}": context[key] for key in context}

    def close(self) -> int:
        """End it; how it ended."""
        with suppress(OSError):
            self.asked.close()  # whereupon it ends
        code = self.process.wait()
        self.told.close()
        return code


class Network:
    """A child that answers; it is started again when it has ended. Threads may share it.

    A question is sent while the one before is answered, so that the child need not wait for it.

    Args:
        weights: the model file, by default the one that comes with asymflow.
        dtype: of the network, e.g. "bfloat16".
    """

    def __init__(self, weights: Path | None, dtype: str) -> None:
        self._command = (
            *(sys.executable, "-m", "asymflow.studio.apart"),
            *(str(weights or embedded.default_weights()), dtype, str(torch.get_num_threads())),
        )
        self._asking = threading.Lock()
        self._local = threading.local()
        self.child = _Child(self._command)

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """See `asymflow.adapter.Adapter`.

        Raises:
            MemoryError: the system has ended the child, which is how it takes memory back.
            RuntimeError: whatever went wrong there.
        """
        since = time.perf_counter()
        mine = threading.Event()
        with self._asking:
            child = self.child
            before, child.last = child.last, mine
            with suppress(OSError):  # it has ended, which reading will tell
                _write(child.asked, {"x_t": x_t, "t": t} | child.named(context))
        before.wait()
        self._local.waited = time.perf_counter() - since
        try:
            answer = _read(child.told)
        except (OSError, ValueError):  # or another thread has seen that it ended
            answer = None
        finally:
            mine.set()
        if answer is None:
            raise self._ended(child)
        if "error" in answer:
            raise RuntimeError(bytes(answer["error"].tolist()).decode())
        return answer["x_0"]

    def waited(self) -> float:
        """Seconds that this thread's last question waited for that of another."""
        return getattr(self._local, "waited", 0.0)

    def close(self) -> None:
        """End the child."""
        self.child.close()

    def _ended(self, child: _Child) -> Exception:
        with self._asking:
            code = child.close()
            if self.child is child:
                self.child = _Child(self._command)
        if code == _KILLED:
            return MemoryError("The process of the network was killed.")
        return RuntimeError(f"The process of the network ended with {code}; see above.")


@dataclass(frozen=True, slots=True, eq=False)
class Apart(EmbeddedAdapter):
    """The embedded model, asked in another process; its answers are the same."""

    network: Network

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.network.denoise(x_t, t, context)


def moved(model: Model, weights: Path | None) -> Model:
    """The model with its network in a child, if it computes on a CPU."""
    if model.device != "cpu":
        return model
    own = model.adapter
    network = Network(weights, model.dtype)
    adapter = Apart(own.model, own.weights_hash, own.training, own.tokenizer, own.library, network)
    return replace(model, adapter=adapter)


def is_apart(model: Model) -> bool:
    """Whether its network is in a child."""
    return isinstance(model.adapter, Apart)


def waited(adapter: Adapter) -> float:
    """Seconds of this thread's last question in which the network was on another's."""
    return adapter.network.waited() if isinstance(adapter, Apart) else 0.0


def end(model: Model) -> None:
    """End the child of a model that has one."""
    if isinstance(model.adapter, Apart):
        model.adapter.network.close()


def _write(stream: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    # Copies, since a file may not hold one memory twice.
    message = save({name: value.clone().contiguous() for name, value in tensors.items()})
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _read(stream: IO[bytes]) -> dict[str, Tensor] | None:
    """The next message; None at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    [length] = _LENGTH.unpack(head)
    message = stream.read(length)
    return load(message) if len(message) == length else None


@torch.inference_mode()
def _answer(adapter: EmbeddedAdapter, asked: IO[bytes], told: IO[bytes]) -> None:
    """Answer until nobody asks."""
    contexts: OrderedDict[int, Context] = OrderedDict()
    while (message := _read(asked)) is not None:
        number = int(message["number"])
        own = {name[1:]: value for name, value in message.items() if name.startswith(".")}
        contexts[number] = own or contexts[number]
        contexts.move_to_end(number)
        if len(contexts) > _CONTEXTS:
            contexts.popitem(last=False)
        try:
            x_0 = adapter.denoise(message["x_t"], message["t"], contexts[number])
            answer = {"x_0": x_0}
        except (RuntimeError, MemoryError) as error:
            answer = {"error": torch.tensor(list(f"{error!r}".encode()), dtype=torch.uint8)}
        _write(told, answer)


def _main(weights: str, dtype: str, threads: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this too
    # Whatever a library prints must not be taken for an answer.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(threads))
    adapter = embedded.load(Path(weights), dtype=_TYPES[dtype])
    _answer(adapter, sys.stdin.buffer, told)


if __name__ == "__main__":
    _main(*sys.argv[1:])
