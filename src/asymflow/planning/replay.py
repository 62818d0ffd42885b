"""Resumes interrupted measurements by replaying recorded network outputs.

A measurement makes the same network calls in the same order every time. `ReplayAdapter` records a
hash of the inputs of each call, and its output. When the measurement is restarted, recorded outputs
are returned, and the network is called only after the last one. The measurement itself needs no
code for this, and keeps neither its position nor intermediate results.

An output is replayed only for identical inputs to the same model. Records of another job, or of a
version that makes other calls, do not match and are dropped.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from asymflow.core.adapter import Adapter, Context, Wrapped

RECORDED = 2**30
"""Bytes up to which the outputs of a measurement are recorded."""
_HASH, _CHECK = 16, 4
"""Bytes before an output: a hash of the inputs, and a checksum of the output."""


def small(adapter: Adapter, size: tuple[int, int], outputs: int) -> bool:
    """Whether so many outputs for pictures of (height, width) are few enough to be recorded."""
    return outputs * 4 * adapter.channels * math.prod(size) <= RECORDED


@contextmanager
def recorded(adapter: Adapter, path: Path) -> Generator[ReplayAdapter]:
    """The adapter with its outputs recorded in `path`, which the caller removes when done.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("r+b") as file:
        yield ReplayAdapter(adapter, file)


class ReplayAdapter(Wrapped):
    """An adapter that replays outputs from a file while they match, then calls and records.

    Attributes:
        replayed: number of outputs that came from the file.
        computed: number of outputs that came from the network.
    """

    def __init__(self, inner: Adapter, file: BinaryIO) -> None:
        super().__init__(inner)
        self.replayed = 0
        self.computed = 0
        self._file = file

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        key = call_hash(self.name, x_t, t, context)
        if self.computed == 0:
            found = self._read(key, x_t)
            if found is not None:
                self.replayed += 1
                return found
        self.computed += 1
        x_0 = self.inner.denoise(x_t, t, context)
        output = _bytes(x_0)
        self._file.write(key + zlib.crc32(output).to_bytes(_CHECK, "big") + output)
        self._file.flush()
        return x_0

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        """Not recorded: what a slow part says is many times as large as a picture."""
        return super().denoise_split(x_t, t, context, slow)

    def _read(self, key: bytes, x_t: Tensor) -> Tensor | None:
        """The next output, shaped like x_t; None if it does not match, which drops all records."""
        begin = self._file.tell()
        head = self._file.read(_HASH + _CHECK)
        output = bytearray(self._file.read(x_t.numel() * x_t.element_size()))
        check = zlib.crc32(output).to_bytes(_CHECK, "big")
        # The last record may be incomplete: the program was stopped while it wrote.
        if output and head == key + check:
            values = torch.frombuffer(output, dtype=torch.uint8).view(x_t.dtype)
            return values.view(x_t.shape).to(x_t.device)
        self._file.seek(begin)
        self._file.truncate()
        return None


def call_hash(name: str, x_t: Tensor, t: Tensor, context: Context) -> bytes:
    """A hash, 16 bytes, of the inputs of `Adapter.denoise` and of the adapter's name."""
    found = hashlib.blake2b(f"{name} {x_t.dtype} {tuple(x_t.shape)}".encode(), digest_size=_HASH)
    for tensor in (x_t, t, *(context[key] for key in sorted(context))):
        found.update(_bytes(tensor))
    return found.digest()


def _bytes(tensor: Tensor) -> bytes:
    # A copy, since a single value counts as contiguous whatever its stride.
    own = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return own.view(-1).view(torch.uint8).numpy().tobytes()
