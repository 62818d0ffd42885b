"""The model that costs nothing in the place of the real one, and a way to type commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from asymflow.cli import main
from asymflow.models import loading
from tests.fakes import FakeModel


@dataclass(frozen=True)
class Typed:
    """What a command line did."""

    code: int
    out: str
    err: str


Type = Callable[..., Typed]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The fake, loaded by every command that loads a model."""
    fake = FakeModel()

    def load(ref: str, *, device: torch.device, dtype: torch.dtype) -> FakeModel:
        fake.loads += 1
        fake.dtypes.append(dtype)
        return fake

    monkeypatch.setattr(loading, "load", load)
    return fake


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def type_(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Type:
    """Types `asymflow ...` in `here`, on a terminal that is none."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):  # plans and styles of nobody
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def run(*words: object) -> Typed:
        code = main.run([str(word) for word in words])
        out, err = capfd.readouterr()
        return Typed(code, out, err)

    return run
