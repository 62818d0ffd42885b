"""The list of skips that are allowed, in runs of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import ALLOWED, OPTIONAL

ROOT = Path(__file__).parents[1]

CONFTEST = """
from tests.skips import Skips

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(complete={complete}))
"""

RUNS = f"""
import pytest

def test_runs(): pass

@pytest.mark.skip(reason={ALLOWED[0]!r})
def test_is_listed(): pass

@pytest.mark.xfail
def test_is_expected_to_fail(): assert False
"""

SKIPS = """
import pytest

def test_tired(): pytest.skip("today is Sunday")
"""

ABSENT = """
import pytest
pytest.skip("could not import '{module}': none", allow_module_level=True)
"""


def run(folder: Path, *words: str, complete: bool = True, **files: str) -> tuple[int, str]:
    """Exit status and output of pytest for files of tests, which always have some that run."""
    (folder / "conftest.py").write_text(CONFTEST.format(complete=complete))
    for name, text in {"runs": RUNS, **files}.items():
        (folder / f"test_{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_listed_skips_and_expected_failures_pass(tmp_path: Path) -> None:
    status, told = run(tmp_path)
    assert status == 0, told
    assert "1 passed, 1 skipped, 1 xfailed" in told
    assert "not allowed" not in told


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_other_skips_fail_the_run_and_are_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    absent = ABSENT.format(module="none_such")
    status, told = run(tmp_path, *words, tired=SKIPS, absent=absent)
    assert status == 1, told
    assert "test_tired.py::test_tired: today is Sunday\n" in told
    assert "test_absent.py: could not import 'none_such': none\n" in told
    assert "ALLOWED in tests/skips.py" in told
    assert f"{ALLOWED[0]}\n" not in told.partition("not allowed")[2]


@pytest.mark.parametrize("complete", [False, True])
def test_optional_packages_may_be_absent_until_all_are_installed(
    tmp_path: Path, complete: bool
) -> None:
    status, told = run(tmp_path, complete=complete, absent=ABSENT.format(module=OPTIONAL[0]))
    assert status == (1 if complete else 0), told
