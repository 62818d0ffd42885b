"""Pictures and times of a sampler that are kept between runs."""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.core import presets
from asymflow.core.types import Request
from asymflow.io.files import replacing
from asymflow.models.embedded.adapter import EmbeddedAdapter

_VERSION = 3  # Part of every cache key: raise it whenever a sampler or a measurement changes.


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Pictures of the first k requests by one configuration, and what they took.

    Attributes:
        pictures: [k, h, w, 4] in [0, 1]. float16 is within a sixteenth of a level of 256.
        seconds, rows, whole: per picture [k]; see `Peer`.
    """

    pictures: NDArray[np.float16]
    seconds: NDArray[np.float64]
    rows: NDArray[np.int64]
    whole: NDArray[np.int64]
    macs: float
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class Shelf:
    """Keeps what has been measured in a folder, or nowhere."""

    adapter: EmbeddedAdapter
    root: Path | None
    size: int

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What times depend on."""
        device = self.adapter.template.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "device": f"{device.type} ({name})",
            "dtype": str(self.adapter.model.basis.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def path(self, suffix: str, settings: object, requests: Sequence[Request]) -> Path | None:
        """Where what these settings give for these requests is kept."""
        if self.root is None:
            return None
        asked = [[dict(request.inputs), request.seed] for request in requests]
        common = [_VERSION, self.adapter.weights_hash, self.machine, self.size, presets.GUIDANCE]
        key = json.dumps([common, settings, asked], sort_keys=True)
        return self.root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{suffix}"


def load_taken(path: Path | None) -> Taken | None:
    """What is kept; None where it is absent or damaged, since it can be computed again."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            taken = Taken(
                stored["pictures"],
                stored["seconds"],
                stored["rows"],
                stored["whole"],
                float(stored["macs"]),
                int(stored["peak_bytes"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return taken


def save_taken(path: Path | None, taken: Taken) -> None:
    """Write what `load_taken` reads; without a path nothing is kept."""
    if path is not None:
        with replacing(path) as file:
            np.savez(
                file,
                pictures=taken.pictures,
                seconds=taken.seconds,
                rows=taken.rows,
                whole=taken.whole,
                macs=taken.macs,
                peak_bytes=taken.peak_bytes,
            )
