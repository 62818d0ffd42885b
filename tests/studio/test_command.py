"""`asymflow studio` and `asymflow serve` as somebody types them."""

from __future__ import annotations

import importlib.util
import logging
import socket
from collections.abc import Generator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from asymflow.cli import main


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    """The commands send the log to the standard error of their process, which a test replaces."""
    yield
    for name in ("asymflow.studio", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "fastapi" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main.run(["studio", "--no-browser"]) == 2
    assert "pip install 'asymflow[studio]'" in capsys.readouterr().err


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
