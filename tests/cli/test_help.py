"""What people read first, and how fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import asymflow
from asymflow.core import presets
from asymflow.core.types import SOLVERS
from asymflow.io.images import SUFFIXES
from asymflow.models.embedded import plans
from asymflow.training.recipes import RECIPES

from .conftest import Type

SOURCE = Path(asymflow.__file__).parents[1]


def help_text(type_: Type, *words: str) -> str:
    typed = type_(*words, "--help")
    assert typed.code == 0
    return " ".join(typed.out.replace("│", " ").split())


def test_help_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from asymflow.cli import main; main.run(['generate', '--help']);"
        "sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_no_words_show_the_help(type_: Type) -> None:
    typed = type_()
    assert typed.code == 0
    for command in (
        "generate",
        "sheet",
        "styles",
        "models",
        "doctor",
        "profile",
        "plan",
        "bench",
        "train",
        "data",
    ):
        assert f" {command} " in typed.out


def test_version(type_: Type) -> None:
    assert type_("--version").out == f"asymflow {asymflow.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "generate",
        "sheet",
        "styles",
        "models",
        "doctor",
        "profile",
        "plan",
        "plan make",
        "plan show",
        "plan verify",
        "plan migrate",
        "train",
        "data build",
        "bench quality",
        "bench baselines",
        "bench plan",
        "bench strip",
        "bench speed",
    ],
)
def test_every_command_has_help_that_fits(command: str, type_: Type) -> None:
    typed = type_(*command.split(), "--help")
    assert typed.code == 0
    assert all(len(line) <= 100 for line in typed.out.splitlines())


def test_help_names_every_choice_and_default(type_: Type) -> None:
    text = help_text(type_, "generate")
    for solver in SOLVERS:
        assert solver in text
    for format in set(SUFFIXES.values()):
        assert format in text
    assert f"grid, instead of a plan. [default: {presets.DEFAULT.steps}]" in text
    assert f"embedded: {presets.GUIDANCE:g}]" in text
    assert f"[default: {presets.GUIDED[0]:g}:{presets.GUIDED[1]:g}]" in text
    for name in plans.NAMES:
        assert name in text
    recipes = help_text(type_, "train")
    for name in RECIPES:
        assert name in recipes
