"""The check for GPUs, in miniature on the CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites import gpu_check
from benchmarks.suites.gpu_check import Part, Setup

from asymflow.bench import provenance


def checked(out: Path, *typed: str) -> dict[str, Any]:
    [suite] = [suite for suite in SUITES if suite.name == "gpu_check"]
    arguments = ["--device", "cpu", "--quick", "--out", str(out), *typed]
    gpu_check.run(parser_of(suite, quick=True).parse_args(arguments))
    return json.loads(out.read_text("utf-8"))


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, part: Part) -> None:
    monkeypatch.setattr(gpu_check, "PARTS", {**gpu_check.PARTS, name: part})


def test_every_part_runs_and_says_what_needs_cuda(tmp_path: Path) -> None:
    found = checked(tmp_path / "check.json")
    assert provenance.problems(found[provenance.KEY]) == []
    assert found["passed"]
    parts = found["parts"]
    assert list(parts) == list(gpu_check.PARTS)
    assert {name: part["error"] for name, part in parts.items() if part["error"]} == {}
    assert parts.pop("compiled")["status"] == gpu_check.NO_CUDA
    assert {part["status"] for part in parts.values()} == {"done"}
    agreement = parts["agreement"]["found"]
    assert agreement["cuda float32"] == agreement["cuda bfloat16"] == gpu_check.NO_CUDA
    assert agreement["cpu float32"]["draft"]["equal"]
    assert 0 < agreement["cpu bfloat16"]["draft"]["rms"] < 0.03
    assert parts["determinism"]["found"]["float32"]["of 2"]["equal"]
    assert parts["sampler"]["found"]["passes_ratio"] > 1
    call = parts["memory"]["found"]["call of 8 rows"]
    assert call["measured_to_estimated"] == pytest.approx(1, abs=0.05)


def test_limits_add_up_to_less_than_four_minutes() -> None:
    assert sum(part.seconds for part in gpu_check.PARTS.values()) <= 225


def test_a_part_that_fails_keeps_what_it_found_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(setup: Setup) -> Iterator[tuple[str, Any]]:
        yield "first", 1
        raise gpu_check.Failed("too far apart")

    replaced(monkeypatch, "agreement", Part(wrong, 5, correctness=True))
    out = tmp_path / "check.json"
    with pytest.raises(SystemExit) as left:
        checked(out, "--parts", "agreement", "compiled")
    assert left.value.code == 1
    found = json.loads(out.read_text("utf-8"))
    assert not found["passed"]
    part = found["parts"]["agreement"]
    assert (part["status"], part["found"]) == ("failed", {"first": 1})
    assert "too far apart" in part["error"]
    assert found["parts"]["compiled"]["status"] == gpu_check.NO_CUDA


def test_a_measurement_that_fails_does_not_decide_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(setup: Setup) -> Iterator[tuple[str, Any]]:
        yield "first", 1
        time.sleep(60)

    replaced(monkeypatch, "memory", Part(slow, 1))
    found = checked(tmp_path / "check.json", "--parts", "memory")
    assert found["passed"]
    part = found["parts"]["memory"]
    assert (part["status"], part["found"]) == ("out of time", {"first": 1})
    assert part["error"] == "It took longer than 1 s."
    assert part["seconds"] < 30
