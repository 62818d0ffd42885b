"""Pictures per network call, which follow from the measured cost of calls.

The first pictures of a size are made with the default limit. Then calls of that size are measured,
one number of rows at a time between two calls for pictures, and the limit is what the curve and
the free memory permit (`asymflow.planning.capacity`). Later starts read the curve from the user's
cache.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from asymflow.core import devices
from asymflow.core.batcher import Batcher
from asymflow.core.types import Request
from asymflow.generation.pipeline import Model
from asymflow.planning import capacity
from asymflow.planning.costs import CallCost

_log = logging.getLogger("asymflow.server")

Size = tuple[int, int]


class CallSizes:
    """Sets the limits of a batcher by size. Threads may share it.

    Args:
        model: that is measured.
        batcher: of the model; `limits` is changed.
        folder: of measured curves.
    """

    def __init__(self, model: Model, batcher: Batcher, folder: Path) -> None:
        self._model = model
        self._batcher = batcher
        self._folder = folder
        self._lock = threading.Lock()
        self._known: set[Size] = set()
        self._measuring: dict[Size, tuple[Iterator[CallCost], list[CallCost]]] = {}

    @property
    def pending(self) -> bool:
        """Whether there is something to measure."""
        return bool(self._measuring)

    def finished(self, request: Request) -> None:
        """Note that a picture has been made: calls of its size are measured if they were not."""
        size = request.size
        if self._model.adapter.batch == 1:
            return
        with self._lock:
            if size in self._known:
                return
            self._known.add(size)
            curve = capacity.read(self._folder, self._key(size))
            if curve is not None:
                self._set(size, list(curve))
                return
            plain = replace(request, image=None, mask=None)
            costs = capacity.measured(self._model.adapter, plain, max_bytes=self._free())
            self._measuring[size] = costs, []

    def measure(self) -> None:
        """Measure calls of one number of rows, if there is something to measure."""
        with self._lock:
            if not self._measuring:
                return
            size, (costs, curve) = next(iter(self._measuring.items()))
            try:
                cost = next(costs, None)
            except Exception:
                # Pictures are made all the same, with the limit that there is.
                _log.exception("the cost of calls could not be measured")
                del self._measuring[size]
                return
            if cost is not None:
                curve.append(cost)
                return
            del self._measuring[size]
            if curve:
                self._set(size, curve)
                self._keep(size, curve)

    def _set(self, size: Size, curve: list[CallCost]) -> None:
        self._batcher.limits[size] = limit = capacity.pictures(curve, self._free())
        _log.info("pictures per call", extra={"size": _text(size), "pictures": limit})

    def _keep(self, size: Size, curve: list[CallCost]) -> None:
        try:
            capacity.write(self._folder, self._key(size), curve)
        except OSError:
            _log.warning("the cost of calls could not be kept", exc_info=True)

    def _free(self) -> int | None:
        return devices.free_bytes(torch.device(self._model.device))

    def _key(self, size: Size) -> dict[str, str]:
        return {
            "model": self._model.adapter.name,
            "dtype": self._model.dtype,
            "device": devices.name(torch.device(self._model.device)),
            "torch": torch.__version__,
            "size": _text(size),
        }


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
