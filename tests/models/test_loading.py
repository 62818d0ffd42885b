"""Models by the name under which an installed package offers them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asymflow
from asymflow.core import engine
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.models.embedded.adapter import EmbeddedAdapter

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter"


def offer(folder: Path, package: str, *lines: str) -> None:
    """What an installed package leaves behind."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[asymflow.adapters]", *lines]) + "\n")


def test_without_a_name_it_is_the_model_that_comes_along() -> None:
    assert isinstance(asymflow.load(), EmbeddedAdapter)


def test_a_name_is_looked_up_among_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(EXAMPLE / "asymflow_example.py", tmp_path)
    offer(tmp_path, "asymflow_example", "example = asymflow_example:load")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = asymflow.load("example", channels=1)
    [result] = engine.run(model, plan_of(shifted(12, 1.0)), [Request({}, (64, 64), 1)])
    assert result.picture.shape == (64, 64, 1)
    assert (2 * result.picture - 1).std() == pytest.approx(0.3, rel=0.1)


def test_names_that_lead_nowhere_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE / "asymflow_example.py", tmp_path)
    offer(
        tmp_path,
        "broken",
        "missing = not_there:load",
        "nameless = asymflow_example:nothing",
        "number = builtins:int",
        "example = asymflow_example:load",
        "twice = asymflow_example:load",
    )
    offer(tmp_path, "other", "twice = asymflow_example:network")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, message in (
        ("example2", r"offered: example, missing, nameless, number, twice"),
        ("missing", "not_there:load cannot be loaded: No module named 'not_there'"),
        ("nameless", "asymflow_example:nothing cannot be loaded"),
        ("number", "builtins:int returned a int, which is no"),
        ("twice", "Several packages offer"),
    ):
        with pytest.raises(InputError, match=message):
            asymflow.load(name)
    with pytest.raises(InputError, match=r"cannot be loaded.*'colour'"):
        asymflow.load("example", colour="red")


@pytest.mark.slow
def test_the_example_can_be_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    where = tmp_path / "site"
    subprocess.run([*pip, "--target", str(where), str(source)], check=True)
    script = "import asymflow; print(asymflow.load('example').name)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(where)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "example-1\n"
