"""How many pictures a network call should have, from the measured cost of calls.

More rows keep a device busier up to the knee of its cost curve (`costs.knee`). Beyond it a call
takes longer and more memory, and makes no more pictures per second. The curve is measured once
for each model, device and size, and kept in a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from asymflow.core.adapter import Adapter
from asymflow.core.batcher import is_out_of_memory
from asymflow.core.types import Request
from asymflow.io.files import key_name, write_text
from asymflow.planning import costs
from asymflow.planning.costs import KNEE, CallCost

MOST_ROWS = 64
"""Rows of the largest call that is measured."""
LONGEST = 0.25
"""Seconds of a call: pictures join and leave between calls, so longer ones are not measured."""
_REPEATS = 3
_STALLED = 2
"""Doublings without a gain after which the curve ends: one may be noise, or a slower kernel."""


def measured(
    adapter: Adapter, request: Request, *, max_bytes: int | None = None
) -> Iterator[CallCost]:
    """Measure calls of 1, 2, 4, ... rows, one number for each item that is requested.

    The curve ends at the limit of the adapter, where more rows gain nothing, and before a call
    that would take too much memory or too long. One that runs out of memory ends it too.

    Args:
        adapter: the model.
        request: gives size and condition.
        max_bytes: memory that a call may take, None if it is unknown.
    """
    found: list[CallCost] = []
    rows = 1
    while rows <= min(MOST_ROWS, adapter.batch or MOST_ROWS):
        try:
            [cost] = costs.curve(adapter, request, (rows,), _REPEATS)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return
            raise
        found.append(cost)
        yield cost
        rows *= 2
        if _stalled(found) or 2 * cost.seconds > LONGEST:
            return
        if max_bytes is not None and len(found) > 1 and costs.most_rows(found, max_bytes) < rows:
            return


def _stalled(curve: Sequence[CallCost]) -> bool:
    """Whether the last doublings are no better than the best before."""
    before, last = curve[:-_STALLED], curve[-_STALLED:]
    if not before:
        return False
    best = max(each.rate for each in before)
    return all((1 - KNEE) * each.rate < best for each in last)


def pictures(curve: Sequence[CallCost], max_bytes: int | None = None) -> int:
    """Pictures per call: the knee, or fewer where memory is short, and at least 1.

    A picture with guidance has two rows, which memory has to hold.

    Raises:
        InputError: nothing has been measured.
    """
    rows = costs.knee(curve)
    if max_bytes is None or len(curve) < 2:
        return rows
    return max(1, min(rows, costs.most_rows(curve, max_bytes) // 2))


def path(folder: Path, key: Mapping[str, str]) -> Path:
    """The file of a curve.

    Args:
        folder: of all curves.
        key: what the curve depends on, such as weights, device and size.
    """
    return folder / f"{key_name(key)}.json"


def read(folder: Path, key: Mapping[str, str]) -> tuple[CallCost, ...] | None:
    """The curve that was measured before; None if there is none, or its file is damaged."""
    try:
        found = json.loads(path(folder, key).read_text("utf-8"))
        if found["key"] != dict(key):
            return None
        curve = tuple(CallCost(int(n), float(s), int(b)) for n, s, b in found["curve"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    valid = all(each.rows > 0 and each.seconds > 0 and each.peak_bytes >= 0 for each in curve)
    return curve if curve and valid else None


def write(folder: Path, key: Mapping[str, str], curve: Sequence[CallCost]) -> None:
    """Keep a curve.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    content = {"key": dict(key), "curve": [astuple(each) for each in curve]}
    write_text(path(folder, key), json.dumps(content))
