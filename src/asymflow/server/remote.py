"""Runs the network in a separate process, so that the rest of the server does not slow it down.

The server handles calls while it generates, and Python runs one thread of a process at a time:
every operation of the network would wait for its turn. So on a CPU the network runs in a child
process, with its standard input and output as the channel (see `asymflow.server.supervisor`).
Everything else stays here: the worker runs a plan step by step and calls the child for estimates.

A message is a safetensors file in memory: a request has "x_t", "t" and the "number" of a context,
with its tensors if it is new; the response has "x_0", or "error" as bytes of text. For late tiers a
request has "split", and what the slow part said before, with names that begin with a slash; and the
response what it says.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import IO, cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from asymflow.core.adapter import Adapter, Context, Splits, Wrapped
from asymflow.generation.pipeline import Model
from asymflow.models import loading
from asymflow.models.loading import EMBEDDED
from asymflow.server.supervisor import Supervised, end_with_parent, read, write

_CONTEXTS = 8
"""Contexts cached on both sides: two per running picture."""
_START_SECONDS = 300.0
"""Time limit for the start of a child. It takes a few seconds on a free core."""
_TYPES = {
    str(each).removeprefix("torch."): each
    for each in (torch.float32, torch.bfloat16, torch.float16)
}


@dataclass(slots=True)
class _Known:
    """The contexts cached in a child, with their numbers.

    References are kept, so that the identity of a cached context is not reused.
    """

    numbers: count[int] = field(default_factory=count)
    contexts: OrderedDict[int, tuple[int, Context]] = field(
        default_factory=lambda: OrderedDict[int, tuple[int, Context]]()
    )

    def named(self, context: Context) -> dict[str, Tensor]:
        """The number of a context, and its tensors if it is new."""
        known = self.contexts.get(id(context))
        if known is not None:
            self.contexts.move_to_end(id(context))
            return {"number": torch.tensor(known[0])}
        number = next(self.numbers)
        self.contexts[id(context)] = number, context
        if len(self.contexts) > _CONTEXTS:
            self.contexts.popitem(last=False)
        return {"number": torch.tensor(number)} | {f".{key}": context[key] for key in context}


class Network:
    """A network in a child. Threads may share it.

    Args:
        command: that starts the child.
        answer_seconds: time limit for a response; `start_seconds` is that for the start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        answer_seconds: float,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self.process: Supervised[_Known] = Supervised(
            command, _Known, answer_seconds=answer_seconds, start_seconds=start_seconds
        )

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """See `asymflow.core.adapter.Adapter`.

        Raises:
            Lost: there is no child, or it ended before it responded.
            RuntimeError: an error in the child.
        """
        response = load(
            self.process.request(
                lambda known: _message({"x_t": x_t, "t": t} | known.named(context))
            )
        )
        return _checked(response)["x_0"]

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        """See `asymflow.core.adapter.Splits`; errors are those of `denoise`."""
        own = {"x_t": x_t, "t": t, "split": torch.ones(())} | _marked(slow or {})
        response = load(self.process.request(lambda known: _message(own | known.named(context))))
        found = _checked(response)
        return found["x_0"], _unmarked(found)


class Apart(Wrapped):
    """A model with its network in another process; outputs are the same."""

    def __init__(self, inner: Adapter, network: Network) -> None:
        super().__init__(inner)
        self.network = network

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.network.denoise(x_t, t, context)

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        return self.network.denoise_split(x_t, t, context, slow)


def command(ref: str | None, dtype: str) -> tuple[str, ...]:
    """The command that starts a child with a model, by default the embedded one."""
    threads = str(torch.get_num_threads())
    return (sys.executable, "-m", "asymflow.server.remote", ref or EMBEDDED, dtype, threads)


def moved(model: Model, answer_seconds: float) -> Model:
    """The model with its network in a child, if it computes on a CPU.

    Args:
        model: as loaded.
        answer_seconds: time limit for a response of the child.
    """
    if model.device != "cpu":
        return model
    network = Network(command(model.ref, model.dtype), answer_seconds=answer_seconds)
    return replace(model, adapter=Apart(model.adapter, network))


def network_of(model: Model) -> Network | None:
    """The remote network of a model, if it has one."""
    found = getattr(model.adapter, "network", None)
    return found if isinstance(found, Network) else None


def waited(adapter: Adapter) -> float:
    """Seconds that this thread's last call waited for a call of another thread."""
    found = getattr(adapter, "network", None)
    return found.process.waited() if isinstance(found, Network) else 0.0


def end(model: Model) -> None:
    """End the child of a model that has one."""
    if (network := network_of(model)) is not None:
        network.process.close()


def _message(tensors: Mapping[str, Tensor]) -> bytes:
    # Copies, since safetensors does not support shared memory.
    return save({name: value.clone().contiguous() for name, value in tensors.items()})


def _checked(response: dict[str, Tensor]) -> dict[str, Tensor]:
    """A response that is no error."""
    if "error" in response:
        raise RuntimeError(bytes(response["error"].tolist()).decode())
    return response


def _marked(slow: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"/{name}": value for name, value in slow.items()}


def _unmarked(message: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[1:]: value for name, value in message.items() if name.startswith("/")}


def _response(
    adapter: Adapter, message: Mapping[str, Tensor], context: Context
) -> dict[str, Tensor]:
    x_t, t = message["x_t"], message["t"]
    if "split" not in message:
        return {"x_0": adapter.denoise(x_t, t, context)}
    x_0, slow = cast("Splits", adapter).denoise_split(x_t, t, context, _unmarked(message) or None)
    return {"x_0": x_0} | _marked(slow)


@torch.inference_mode()
def _serve(adapter: Adapter, requests: IO[bytes], responses: IO[bytes]) -> None:
    """Serve requests until the input ends."""
    contexts: OrderedDict[int, Context] = OrderedDict()
    write(responses, b"")
    while (sent := read(requests)) is not None:
        if not sent:
            write(responses, b"")
            continue
        message = load(sent)
        number = int(message["number"])
        own = {name[1:]: value for name, value in message.items() if name.startswith(".")}
        contexts[number] = own or contexts[number]
        contexts.move_to_end(number)
        if len(contexts) > _CONTEXTS:
            contexts.popitem(last=False)
        try:
            response = _response(adapter, message, contexts[number])
        except (RuntimeError, MemoryError) as error:
            response = {"error": torch.tensor(list(f"{error!r}".encode()), dtype=torch.uint8)}
        write(responses, _message(response))


def _main(ref: str, dtype: str, threads: str) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this too
    # Output printed by libraries must not be mistaken for a response.
    responses = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(threads))
    adapter = loading.load(ref, dtype=_TYPES[dtype])
    _serve(adapter, sys.stdin.buffer, responses)


if __name__ == "__main__":
    _main(*sys.argv[1:])
