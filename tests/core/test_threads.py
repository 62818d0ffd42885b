"""The limit of spinning threads is set by an import, unless the user decides."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asymflow.core.threads import SPIN_COUNT, limit_spinning


def imported(script: str, **environment: str) -> str:
    """What a process prints that has only these settings of threads."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_an_import_sets_it_and_stays_light() -> None:
    script = (
        "import os, sys, asymflow\n"
        "print(os.environ['GOMP_SPINCOUNT'], {'torch', 'numpy'} & set(sys.modules))"
    )
    assert imported(script) == f"{SPIN_COUNT} set()"


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_user_has_set_is_kept(name: str) -> None:
    script = "import os, asymflow; print(os.environ.get('GOMP_SPINCOUNT'))"
    value = {"GOMP_SPINCOUNT": "77", "OMP_WAIT_POLICY": "active"}[name]
    expected = "77" if name == "GOMP_SPINCOUNT" else "None"
    assert imported(script, **{name: value}) == expected


def test_nothing_is_set_once_torch_is_loaded() -> None:
    environment: dict[str, str] = {}
    limit_spinning(environment, {"torch"})
    assert not environment
    limit_spinning(environment, {"numpy"})
    assert environment == {"GOMP_SPINCOUNT": SPIN_COUNT}
