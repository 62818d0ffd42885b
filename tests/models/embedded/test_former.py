"""Weights that came with asymflow before are where the messages say."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from asymflow.models.embedded import former

ROOT = Path(__file__).parents[3]
HASHES = ("288b709b", "35012769", "12fd6e59", "e11a8aad", "01cc14d7")


def history() -> bool:
    """Whether this is a clone with its history."""
    log = ["git", "rev-list", "--count", "HEAD"]
    found = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.returncode == 0 and int(found.stdout) > 100


@pytest.mark.parametrize("beginning", HASHES)
def test_the_command_of_the_message_writes_the_weights(beginning: str) -> None:
    said = former.recovery(beginning)
    assert said is not None
    if not history():
        pytest.skip("needs a clone with its history")
    command = re.search(r"`git (show \S+) > (\S+)`", said)
    assert command is not None
    found = subprocess.run(
        ["git", *command[1].split()], cwd=ROOT, capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(found).hexdigest().startswith(beginning)


@pytest.mark.parametrize("weights", ["", "e11a", "cd" * 32])
def test_other_weights_are_nowhere(weights: str) -> None:
    assert former.recovery(weights) is None
