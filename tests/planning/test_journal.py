"""What was measured outlives the process, and what is damaged is measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Profile, Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import profiler
from asymflow.planning.journal import Journal
from tests.helpers import draw64

STEPS = plan_of(uniform(4)).steps
OTHER = plan_of(uniform(5)).steps


def test_errors_are_known_again(tmp_path: Path) -> None:
    errors = Journal(tmp_path / "job").errors("chosen")
    assert errors.get(STEPS) is None
    errors[STEPS] = np.array([0.1])
    errors[STEPS] = np.array([0.1, 0.2])
    again = Journal(tmp_path / "job").errors("chosen")
    assert again.get(STEPS) == pytest.approx([0.1, 0.2])
    assert again.get(OTHER) is None
    assert Journal(tmp_path / "job").errors("fresh").get(STEPS) is None


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    errors = Journal(tmp_path).errors("chosen")
    errors[STEPS] = np.array([0.1])
    errors[OTHER] = np.array([0.3])
    path = tmp_path / "chosen.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = Journal(tmp_path).errors("chosen")
    assert again.get(STEPS) == pytest.approx([0.1])
    assert again.get(OTHER) is None
    again[OTHER] = np.array([0.4])
    assert Journal(tmp_path).errors("chosen").get(OTHER) == pytest.approx([0.4])


def test_states_are_made_once_and_again_where_they_are_damaged(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Tensor:
        made.append(1)
        return torch.full((2, 1, 2, 2), float(len(made)))

    for expected in (1.0, 1.0):
        assert float(Journal(tmp_path).states("limit", make).mean()) == expected
    (tmp_path / "limit.safetensors").write_bytes(b"broken")
    assert float(Journal(tmp_path).states("limit", make).mean()) == 2.0
    assert len(made) == 2


def test_what_is_done_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "job")
    journal.errors("chosen")[STEPS] = np.array([0.1])
    journal.remove()
    assert not (tmp_path / "job").exists()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    for journal in (Journal(None), Journal(tmp_path / "file" / "job")):
        errors = journal.errors("chosen")
        errors[STEPS] = np.array([0.1])
        assert errors.get(STEPS) == pytest.approx([0.1])
        assert float(journal.states("limit", lambda: torch.ones(1)).mean()) == 1
        journal.remove()


def test_a_profile_that_is_damaged_is_measured_again(tmp_path: Path) -> None:
    variance = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    model = GaussianAdapter(0.2 * draw64(0, 1, 3, 8, 8), variance)
    requests = [Request({"label": 0}, (8, 8), seed) for seed in range(2)]
    made: list[int] = []

    def make() -> tuple[Profile, Tensor]:
        made.append(1)
        return profiler.measure(model, requests, times=uniform(4), repeats=1)

    first, ends = Journal(tmp_path).profile(make)
    again, known = Journal(tmp_path).profile(make)
    assert len(made) == 1
    assert again.times == first.times
    assert torch.equal(known, ends)
    (tmp_path / "profile.safetensors").write_bytes(b"broken")
    Journal(tmp_path).profile(make)
    assert len(made) == 2
    Journal(tmp_path).profile(make)
    assert len(made) == 2


def test_a_full_disk_costs_what_would_be_kept_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "job")
    errors = journal.errors("chosen")
    journal.remove()  # by another process, or there is no room
    errors[STEPS] = np.array([0.1])
    assert errors.get(STEPS) == pytest.approx([0.1])
    assert "cannot be kept" in caplog.text

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asymflow.planning.journal.replacing", full)
    assert float(journal.states("limit", lambda: torch.ones(1)).mean()) == 1
