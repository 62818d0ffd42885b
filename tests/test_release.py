"""What is handed out: wheels that install beside what is there, and a pack for ComfyUI."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest

from asymflow._version import __version__
from asymflow.core.errors import InputError
from asymflow.models import loading
from asymflow.models.embedded import installed
from tests.small_models import JIT

ROOT = Path(__file__).parent.parent
CODE = f"asymflow-{__version__}-py3-none-any.whl"
EMBEDDED = f"asymflow_embedded-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts/release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def requirements(wheel: Path) -> set[str]:
    """The names of what a wheel always requires."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        found = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    return {re.split(r"[^\w-]", each)[0] for each in found if "extra ==" not in each}


def test_the_code_has_no_weights_and_the_weights_no_code(
    release: ModuleType, tmp_path: Path
) -> None:
    code, embedded, sums = release.wheels(tmp_path)
    assert (code.name, embedded.name, sums.name) == (CODE, EMBEDDED, "SHA256SUMS")
    assert sums.read_text().splitlines() == [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in (code, embedded)
    ]
    assert code.stat().st_size < 3e6
    with zipfile.ZipFile(code) as archive:
        names = set(archive.namelist())
        moments = {info.date_time for info in archive.infolist()}
    weights = "asymflow/models/embedded/weights"
    everything = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/asymflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    large = ("embedded.safetensors", "library.zip", "annotations.zip")
    assert everything - names == {f"{weights}/{name}" for name in large}
    assert moments == {(2023, 11, 14, 22, 13, 20)}
    assert {"torch", "numpy", "pillow"} <= requirements(code)
    with zipfile.ZipFile(embedded) as archive:
        inside = {name.partition("/")[2] for name in archive.namelist()}
        assert {"__init__.py", *large, "card.md"} <= inside
        assert {"LICENSE", "NOTICE", "licenses/CC-BY-4.0.txt"} <= inside
        assert not [name for name in archive.namelist() if name.startswith("asymflow/")]
    assert requirements(embedded) == set()


def test_the_same_commit_makes_the_same_bytes(release: ModuleType, tmp_path: Path) -> None:
    one, other = (release.code(tmp_path / name) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    packs = [release.comfyui(tmp_path / name, stand_in(tmp_path)) for name in ("a", "b")]
    assert packs[0][1].read_bytes() == packs[1][1].read_bytes()


def test_the_date_is_that_of_the_commit(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    release.set_date()
    assert int(os.environ["SOURCE_DATE_EPOCH"]) > 1_580_000_000


def stand_in(folder: Path) -> Path:
    """A small folder of nodes."""
    pack = folder / "nodes"
    for name in ("__init__.py", "nodes/plan.py", "example_workflows/plan.json", "tests/test_it.py"):
        path = pack / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n" if name.endswith("json") else '"""Nodes."""\n')
    (pack / "requirements.txt").write_text("torch==1.0\n")
    (pack / "__pycache__").mkdir(exist_ok=True)
    (pack / "__pycache__/old.pyc").write_text("")
    return pack


def test_a_pack_has_its_wheel_and_requires_no_torch(release: ModuleType, tmp_path: Path) -> None:
    folder, zipped = release.comfyui(tmp_path / "out", stand_in(tmp_path))
    wheel = folder / f"wheels/asymflow-{__version__}+comfyui-py3-none-any.whl"
    assert (folder / "requirements.txt").read_text() == f"./wheels/{wheel.name}\n"
    assert requirements(wheel) & {"torch", "numpy"} == set()
    assert {"pillow", "safetensors"} <= requirements(wheel)
    names = {path.relative_to(folder.parent).as_posix() for path in release.files_of(folder)}
    assert names == {
        f"asymflow-comfyui/{name}"
        for name in (
            *("__init__.py", "nodes/plan.py", "example_workflows/plan.json", "requirements.txt"),
            f"wheels/{wheel.name}",
        )
    }
    with zipfile.ZipFile(zipped) as archive:
        assert set(archive.namelist()) == names
    assert zipped.stat().st_size <= 12_000_000
    again, _ = release.comfyui(tmp_path / "out", stand_in(tmp_path))
    assert again == folder


def test_what_cannot_be_packed_is_refused(
    release: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["comfyui", "--out", str(tmp_path / "out"), "--pack", str(tmp_path)]
    assert release.main(arguments) == 1
    assert "has no __init__.py, so it is no folder of nodes" in capsys.readouterr().err
    pack = stand_in(tmp_path)
    monkeypatch.setattr(release, "MOST_BYTES", 100_000)
    assert release.main([*arguments[:-1], str(pack)]) == 1
    assert "more than the 0 MB of a pack" in capsys.readouterr().err


def test_without_the_weights_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The order of homes: beside the code, then the distribution of the weights.
    monkeypatch.setattr(installed, "_HOMES", ("asymflow_embedded",))
    with pytest.raises(InputError, match="Install the wheel of asymflow-embedded") as found:
        loading.load("embedded")
    assert "\n" not in str(found.value)
    package = tmp_path / "asymflow_embedded"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / installed.LIBRARY).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed.find(installed.LIBRARY) == package / installed.LIBRARY
    assert installed.find(installed.WEIGHTS) is None


@pytest.mark.slow
def test_the_wheels_install_beside_what_is_there(release: ModuleType, tmp_path: Path) -> None:
    code, embedded, _ = release.wheels(tmp_path / "wheels")
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"

    def run(*command: str | Path, fails: bool = False) -> str:
        # Without PYTHONPATH, in a folder that has no clone.
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(each) for each in command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout + done.stderr

    def install(wheel: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        run(*pip, "--no-index", "--no-deps", "--ignore-installed", wheel)

    install(code)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch is there

    assert f"{__version__}" in run(programs / "asymflow", "--version")
    assert site in run(python, "-c", "import asymflow; print(asymflow.__file__)")
    load = f"import asymflow; print(asymflow.load({str(JIT)!r}).card.title)"
    assert run(python, "-c", load).strip()
    assert run(programs / "asymflow", "plan", "export", "--help")
    lacking = run(programs / "asymflow", "generate", "a fox", fails=True)
    assert "Install the wheel of asymflow-embedded" in lacking
    assert len(lacking.splitlines()) == 1

    install(embedded)
    words = ("generate", "a fox", "--plan", "draft", "--seed", "1", "--size", "32", "-o", "fox.png")
    run(programs / "asymflow", *words)
    assert (tmp_path / "fox.png").stat().st_size > 500
