"""Cache of pictures and times between runs."""

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

from asymflow.core.adapter import Adapter
from asymflow.core.types import Request
from asymflow.io.files import replacing, write_text

_VERSION = 4  # Part of every cache key: increment it when a sampler or a measurement changes.


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Pictures of the first k requests by one configuration, and their cost.

    Attributes:
        pictures: [k, h, w, c] in [0, 1]. float16 is accurate to 1/16 of an 8-bit level.
        seconds: wall time of each picture [k].
        rows: rows of its network calls [k].
        whole: rows that went through every block [k].
    """

    pictures: NDArray[np.float16]
    seconds: NDArray[np.float64]
    rows: NDArray[np.int64]
    whole: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ResultCache:
    """Cache of measurements in a folder; disabled if `root` is None.

    Attributes:
        adapter: what is measured.
        dtype: of its network.
    """

    adapter: Adapter
    dtype: str
    root: Path | None

    @cached_property
    def machine(self) -> dict[str, Any]:
        """The conditions that times depend on."""
        device = self.adapter.template.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "device": f"{device.type} ({name})",
            "dtype": self.dtype,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def path(self, suffix: str, settings: object, requests: Sequence[Request]) -> Path | None:
        """The cache file for a configuration and its requests; None if disabled."""
        if self.root is None:
            return None
        jobs = [[dict(each.inputs), each.seed, each.size, each.guidance_scale] for each in requests]
        key = json.dumps(
            [_VERSION, self.adapter.name, self.machine, settings, jobs], sort_keys=True
        )
        return self.root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{suffix}"


def load_samples(path: Path | None) -> Samples | None:
    """Read samples; None if the file is absent or damaged."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            samples = Samples(
                stored["pictures"],
                stored["seconds"],
                stored["rows"],
                stored["whole"],
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return samples


def save_samples(path: Path | None, samples: Samples) -> None:
    """Write samples for `load_samples`; does nothing without a path."""
    if path is not None:
        with replacing(path) as file:
            np.savez(
                file,
                pictures=samples.pictures,
                seconds=samples.seconds,
                rows=samples.rows,
                whole=samples.whole,
            )


def load_value(path: Path | None) -> Any:
    """Read a JSON value; None if the file is absent or damaged."""
    try:
        return None if path is None else json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def save_value(path: Path | None, value: object) -> None:
    """Write a JSON value for `load_value`; does nothing without a path."""
    if path is not None:
        write_text(path, json.dumps(value))
