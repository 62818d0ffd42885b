"""`asymflow studio` and `asymflow serve` as somebody types them."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from asymflow.cli import main
from asymflow.server import app
from asymflow.server.settings import Settings

GUIDE = Path(__file__).parents[2] / "docs/guide/server.md"


def block(language: str) -> str:
    """The example of the guide in a language."""
    found = re.search(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def unit_command() -> list[str]:
    [line] = [line for line in block("ini").splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def container_command() -> list[str]:
    [line] = [line for line in block("dockerfile").splitlines() if line.startswith("CMD ")]
    return json.loads(line.removeprefix("CMD "))


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    """The commands send the log to the standard error of their process, which a test replaces."""
    loggers = [logging.getLogger(name) for name in ("", "asymflow.server", "uvicorn")]
    before = [(logger, logger.handlers, logger.level) for logger in loggers]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    for logger, handlers, level in before:
        logger.handlers = handlers
        logger.setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "fastapi" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main.run(["studio", "--no-browser"]) == 2
    assert "pip install '.[studio]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["studio", "serve"])
def test_an_open_address_needs_a_token(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("ASYMFLOW_TOKEN", raising=False)
    assert main.run([command, "--host", "0.0.0.0", "--data", str(tmp_path)]) == 2
    assert "--token-file" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main.run(["serve", "--port", str(port), "--data", str(tmp_path)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [unit_command(), container_command()])
def test_the_commands_of_the_guide_serve(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Settings] = []

    def run(settings: Settings, *, started: Callable[[str], None]) -> None:
        found.append(settings)

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setenv("ASYMFLOW_TOKEN", "0123456789abcdef-secret")
    assert Path(command[0]).name == "asymflow"
    assert main.run(command[1:]) == 0
    [settings] = found
    assert str(settings.data) == command[command.index("--data") + 1]
    # The container's port is the one that the image tells, and is reached from outside it.
    if command == container_command():
        assert f"EXPOSE {settings.port}" in block("dockerfile")
        assert not settings.loopback


@pytest.mark.parametrize(
    ("options", "drain", "notice", "most"),
    [
        ([], 6.0, 0.0, 10.0),
        (["--host", "0.0.0.0"], 6.0, 2.0, 10.0),
        (["--drain", "50", "--notice", "5"], 50.0, 5.0, 54.0),
        (["--drain", "0"], 0.0, 0.0, 4.0),
    ],
)
def test_how_long_a_stop_takes_is_chosen(
    options: list[str],
    drain: float,
    notice: float,
    most: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[Settings] = []

    def run(settings: Settings, *, started: Callable[[str], None]) -> None:
        found.append(settings)

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setenv("ASYMFLOW_TOKEN", "0123456789abcdef-secret")
    assert main.run(["serve", "--data", str(tmp_path), *options]) == 0
    assert (found[0].drain_seconds, found[0].notice) == (drain, notice)
    assert found[0].stop_seconds <= most


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_of_the_guide_is_one(tmp_path: Path) -> None:
    unit = tmp_path / "asymflow.service"
    installed = shlex.join([sys.executable, "-m", "asymflow"])
    unit.write_text(block("ini").replace(unit_command()[0], installed), "utf-8")
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    found = subprocess.run(verify, capture_output=True, text=True, check=False)
    complaints = [line for line in found.stderr.splitlines() if "asymflow.service" in line]
    assert complaints == []
    unit.write_text(unit.read_text("utf-8").replace("ProtectHome=yes", "ProtectHoem=yes"), "utf-8")
    found = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "ProtectHoem" in found.stderr
