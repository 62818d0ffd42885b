"""The set-up, which runs before anything is installed and on systems that CI does not have."""

import ast
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script for a checkout in `tmp_path` whose .venv has nothing but PyTorch."""
    spec = importlib.util.spec_from_file_location("setup_script", SCRIPTS / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\ntorch-other==1.0\n")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "make_venv", lambda: None)
    monkeypatch.setattr(module, "installed", {"torch": "2.13.0"}.get)
    return module


def test_programs_lie_where_each_system_has_them(setup: ModuleType) -> None:
    assert setup.program("asymflow", "linux") == setup.VENV / "bin/asymflow"
    assert setup.program("asymflow", "darwin") == setup.VENV / "bin/asymflow"
    assert setup.program("asymflow", "win32") == setup.VENV / "Scripts/asymflow.exe"


def test_what_is_ready_is_not_installed_again_until_a_requirement_changes(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[tuple[str, ...]] = []

    def run(*arguments: str, **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, "2.13.0+cpu", "")

    monkeypatch.setattr(setup, "_pip", run)
    setup.ensure("studio")
    assert commands == [("install", "--constraint", "constraints.txt", "--editable", ".[studio]")]
    setup.ensure("studio")
    assert len(commands) == 1
    setup.ensure()
    assert commands[1][-1] == "."
    setup.ensure("dev")
    assert commands[2][-1] == ".[dev]"
    assert commands[3][1] == "--no-deps"
    setup.ensure("train")  # which dev contains
    assert len(commands) == 4
    (tmp_path / "pyproject.toml").write_text("# changed")
    setup.ensure("train")
    assert len(commands) == 5


@pytest.mark.parametrize(
    ("platform", "gpu", "listed", "indexes"),
    [
        ("linux", None, "2.13.0+cpu, 2.12.0", [False]),
        ("linux", None, "2.13.0", [True, False]),
        ("linux", "/usr/bin/nvidia-smi", "2.13.0", [False]),
        ("darwin", None, "2.13.0", [False]),
        ("win32", None, "2.13.0", [False]),
    ],
)
def test_only_linux_without_a_gpu_needs_the_index_of_cpu_builds(
    setup: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    gpu: str | None,
    listed: str,
    indexes: list[bool],
) -> None:
    asked: list[bool] = []

    def run(*arguments: str, **_: object) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "install":
            asked.append("--index-url" in arguments)
        return subprocess.CompletedProcess(arguments, int("--index-url" in arguments), listed, "")

    monkeypatch.setattr(setup, "_pip", run)
    monkeypatch.setattr(setup.sys, "platform", platform)
    monkeypatch.setattr(setup.shutil, "which", lambda _: gpu)  # pyright: ignore[reportUnknownLambdaType]
    setup.install_torch(setup.pinned("torch"))
    assert asked == indexes


def test_what_pip_lists_is_not_silenced(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip -qq index versions` prints nothing, so that a build for the CPU would not be found."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        listed = "" if "-qq" in command else "Available versions: 2.13.0+cpu"
        return subprocess.CompletedProcess(command, 0, listed, "")

    monkeypatch.setattr(setup.subprocess, "run", run)
    assert setup._cpu_build("torch==2.13.0")
    assert not setup._cpu_build("torch==2.12.0")


def test_a_failed_install_is_the_end_and_leaves_no_stamp(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: str, **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 2, "", "")

    monkeypatch.setattr(setup, "_pip", fail)
    with pytest.raises(SystemExit) as left:
        setup.ensure()
    assert left.value.code == 2
    assert not list((tmp_path / ".venv").iterdir())


def test_an_older_python_is_told_what_it_needs(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script in ("setup.py", "demo.py"):  # which it must be able to read to say so
        ast.parse((SCRIPTS / script).read_text("utf-8"), feature_version=(3, 8))
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(setup.sys, "version", "3.10.1 (main)")
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and this is 3\.10\.1"):
        setup.require_python()
