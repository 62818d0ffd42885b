"""The commands of the guide "Use a model of your own", as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Type

pytest.importorskip("diffusers")

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "models.md"


def test_the_commands_of_the_guide_run(type_: Type, here: Path) -> None:
    text = PAGE.read_text("utf-8")
    [make] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [quick, _] = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(make, "guide", "exec"), {})
    lines = quick.splitlines()
    assert len(lines) == 5
    for line in lines:
        _, *words = shlex.split(line)
        typed = type_(*words)
        assert typed.code == 0, (line, typed.err)
    with Image.open("star.png") as slow, Image.open("fast.png") as fast:
        assert np.asarray(slow).std() > 0
        assert slow.size == fast.size == (16, 16)
