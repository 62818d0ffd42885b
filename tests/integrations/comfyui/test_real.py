"""The real ComfyUI, where there is one: `python -m benchmarks comfyui`, which the skip is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.comfyui import interface, parity
from benchmarks.results import ROOT


@pytest.mark.slow
@pytest.mark.skipif(
    "ASYMFLOW_COMFYUI" not in os.environ, reason="needs ASYMFLOW_COMFYUI, a checkout of ComfyUI"
)
def test_in_comfyui_itself(tmp_path: Path) -> None:
    out = tmp_path / "comfyui.json"
    python = os.environ.get("ASYMFLOW_COMFYUI_PYTHON", sys.executable)
    command = [python, "-m", "benchmarks", "comfyui", "--no-measure", "--out", str(out)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(out.read_text())
    assert found["faults"] == []
    assert max(found["differences"].values()) <= parity.TOLERANCE


def test_the_stand_in_is_told_from_another_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """`interface.differences` finds what would make the stand-in useless."""

    class Real:
        def same(self, a: int, b: int, c: int = 0) -> None: ...

        def renamed(self, other: int) -> None: ...

        def needs(self, a: int, more: int) -> None: ...

    class Ours:
        def same(self, a: int, b: int) -> None: ...

        def renamed(self, a: int) -> None: ...

        def needs(self, a: int) -> None: ...

        def gone(self) -> None: ...

    def only_ours(_: Path) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(interface.standin, "modules", only_ours)
    monkeypatch.setattr(interface, "ELSEWHERE", {f"{__name__}.Real": Ours})
    monkeypatch.setitem(sys.modules, __name__, type("Module", (), {"Real": Real}))
    assert interface.differences() == [
        "Real.renamed takes self, other, and the stand-in self, a",
        "Real.renamed needs other too",
        "Real.needs needs more too",
        "Real has no gone",
    ]
