"""A job of a model that costs nothing, run as a command of its own or in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asymflow.cli import main
from tests.bulk import models

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Typed:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Typed]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the models of `tests.bulk.models` installed."""
    site = tmp_path / "site"
    models.install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):  # plans and styles of nobody
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def batch(here: Path, capfd: pytest.CaptureFixture[str]) -> Type:
    """Types `asymflow batch` with the free model, in this process; its workers are processes."""

    def run(*words: object, model: str = models.NAME, workers: int = 1) -> Typed:
        code = main.run(
            ["batch", "--model", model, "--workers", str(workers), *map(str, words), "--json"]
        )
        out, err = capfd.readouterr()
        return Typed(code, out, err)

    return run


@pytest.fixture
def arrow() -> Any:
    """The package pyarrow, with `pyarrow.parquet`."""
    pytest.importorskip("pyarrow.parquet")
    return pytest.importorskip("pyarrow")


def started(*words: object) -> subprocess.Popen[str]:
    """`asymflow batch` with the free model in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "asymflow", "batch", "--model", models.NAME, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """A manifest of JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def some(count: int, **columns: object) -> list[dict[str, object]]:
    """Rows of different prompts."""
    return [{"id": f"row {i}", "prompt": f"thing {i}", "size": 32, **columns} for i in range(count)]


def entries(out: Path) -> list[dict[str, Any]]:
    """All lines of metadata of a job; every file that they name is there, and no other."""
    found: list[dict[str, Any]] = []
    for path in sorted((out / "data").rglob("metadata.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        names = {each["file_name"] for each in lines}
        assert {each.name for each in path.parent.iterdir()} == names | {path.name}
        assert len(lines) <= 1000
        found += lines
    return found


def hashes(out: Path) -> dict[str, str]:
    """The pixels of every row, by its id; none is there twice."""
    found = entries(out)
    by_id = {each["id"]: each["sha256"] for each in found}
    assert len(by_id) == len(found)
    return by_id


def errors(out: Path) -> list[dict[str, Any]]:
    """What failed."""
    return [
        json.loads(line)
        for path in sorted(out.glob("errors*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
