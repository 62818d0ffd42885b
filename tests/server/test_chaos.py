"""A few rounds of `benchmarks chaos` with a child that imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.slow
def test_no_misfortune_loses_or_doubles_a_job(tmp_path: Path) -> None:
    report = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "benchmarks", "chaos", "--rounds", "5"]
    command += ["--child", "small", "--seed", "1"]
    run = subprocess.run(
        [*command, "--answer-seconds", "3", "--out", str(report)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=900,
    )
    assert report.exists(), run.stdout + run.stderr
    found = json.loads(report.read_text("utf-8"))
    assert found["jobs"] >= 10
    assert found["pictures_seen"] == 2 * found["jobs"]
    assert not any(found["wrong"].values()), run.stdout
