"""The stand-in for ComfyUI, and the pack in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.comfyui import host

from tests.integrations.comfyui import standin
from tests.integrations.comfyui.standin import StandIn


@pytest.fixture
def standing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    standin.SEEN.interrupted, standin.SEEN.free = False, 2**40
    standin.SEEN.progress.clear()
    with standin.installed(tmp_path / "models"):
        yield StandIn()


@pytest.fixture
def pack(standing_in: StandIn) -> Any:
    return host.load_pack()
