"""What was measured outlives the process, and what is damaged is measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.schedules import plan_of, uniform
from asymflow.planning.journal import Journal, fingerprint

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


def test_jobs_differ_by_what_they_depend_on() -> None:
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert fingerprint({"a": "1"}) != fingerprint({"a": "2"})
