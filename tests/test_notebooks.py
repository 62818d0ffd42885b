"""Notebooks run as they stand, and are kept without what running them leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

# A kernel is a process with sockets and threads of its own; it stays out of that of the tests.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, timeout=300, kernel_name="python3").execute()
nbformat.write(book, sys.argv[2])
"""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def docs() -> ModuleType:
    """scripts/docs.py"""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_some() -> None:
    assert NOTEBOOKS


@each
def test_it_is_kept_without_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == docs().stripped(text), "run python scripts/docs.py"


def test_what_a_run_leaves_is_removed() -> None:
    text = NOTEBOOKS[0].read_text(encoding="utf-8")
    book = json.loads(text)
    [first, *_] = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    first |= {"execution_count": 3, "outputs": [{"output_type": "stream", "text": "a"}]}
    first["metadata"] = {"execution": {"iopub.status.busy": "now"}}
    book["metadata"]["language_info"]["version"] = "3.11"
    used = json.dumps(book)
    assert docs().stripped(used) == text


@each
@pytest.mark.slow
def test_it_runs(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    folders = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(tmp_path / "run.ipynb")],
        env={**os.environ, **folders, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells: list[Any] = json.loads((tmp_path / "run.ipynb").read_text("utf-8"))["cells"]
    outputs = [one for cell in cells for one in cell.get("outputs", ())]
    assert not [one for one in outputs if one.get("name") == "stderr"]  # no warnings
    assert sum("image/png" in one.get("data", {}) for one in outputs) >= 3
