"""What holds for the repository as a whole: imports, public names, notices, examples, wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from hatchling import build
from packaging.requirements import Requirement
from packaging.version import Version

import asymflow
from asymflow.models.embedded.styles import KEYWORDS, NAMES, STYLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL), 1
    )
]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running `code`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    program = f"try:\n    {code}\nexcept SystemExit:\n    pass\n{report}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_asymflow_loads_nothing_heavy() -> None:
    assert not loaded_by("import asymflow") & {"torch", "numpy", "PIL", "typer"}


@pytest.mark.parametrize(
    "module",
    [
        "core.errors",
        "core.presets",
        "core.schedules",
        "core.transforms",
        "core.types",
        "planning.plan_files",
        "planning.planner",
    ],
)
def test_plans_need_no_torch(module: str) -> None:
    assert "torch" not in loaded_by(f"import asymflow.{module}")


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_asking_the_command_about_itself_loads_no_torch(arguments: str) -> None:
    code = (
        f"import sys, asymflow.cli.main as cli; sys.argv = ['asymflow', {arguments!r}]; cli.main()"
    )
    assert "torch" not in loaded_by(code)


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    for name in asymflow.__all__:
        assert getattr(asymflow, name) is not None
    assert asymflow.__file__ is not None
    tree = ast.parse(Path(asymflow.__file__).read_text(encoding="utf-8"))
    [typed] = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    for name, module in homes.items():
        assert module == getattr(asymflow, name).__module__ or name in ("CONDITIONAL", "FULL")
    assert sorted(homes) == sorted(asymflow.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="rum"):
        getattr(asymflow, "rum")  # noqa: B009


def test_notice_credits_every_drawing_and_name() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    entries = re.split(r"\n\n+", notice)
    for style in STYLES:
        [entry] = [e for e in entries if re.search(rf"^[a-z0-9, -]*\b{style.id}[,:]", e)]
        assert style.upstream in entry
        assert re.search(rf"\b{style.licence}\b", entry)
        assert style.package.name in entry
    for package in (NAMES, KEYWORDS):
        assert package.name in notice


ADVISORIES = {
    "torch": "2.6.0",  # CVE-2025-32434
    "pillow": "12.3.0",  # CVE-2026-55379, -42311, -40192, -25990
    "h11": "0.16.0",  # CVE-2025-43859
    "python-multipart": "0.0.31",  # CVE-2026-53540, -53539, -42561, -40347
    "starlette": "1.3.1",  # CVE-2026-54283, -54282, -48710, CVE-2025-62727
    "transformers": "4.53.0",  # CVE-2025-6921, -6638, -6051, -5197
}
"""The first version of each package without the advisories that were known in November 2026."""


def test_no_package_may_be_older_than_its_advisories() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(each) for each in [*project["dependencies"], *chain(*extras)]]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name, safe in ADVISORIES.items():
        [ours] = [each for each in wanted if each.name == name]
        floors = [Version(each.version) for each in ours.specifier if each.operator == ">="]
        assert floors, name
        assert floors[0] >= Version(safe), name
        [used] = re.findall(rf"^{name}==(.+)$", pinned, re.MULTILINE | re.IGNORECASE)
        assert Version(used) >= floors[0], name


def test_changelog_knows_this_version() -> None:
    assert f"\n## {asymflow.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", EXAMPLES)
def test_documented_examples_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def test_the_readme_has_an_example() -> None:
    assert "```python" in README


def test_wheel_has_the_data_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
    package = ROOT / "src" / "asymflow"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT / "src").as_posix() in names
    weights = "models/embedded/weights"
    for needed in ("py.typed", f"{weights}/embedded.safetensors", f"{weights}/card.md"):
        assert f"asymflow/{needed}" in names
    for legal in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"licenses/{legal}") for name in names)
