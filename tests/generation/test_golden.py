"""Pictures of the shipped model and plans are those that golden.json remembers.

After a change that moves pictures on purpose:

    python -m tests.generation.test_golden

writes the file again; say so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asymflow.generation import pipeline
from asymflow.generation.spec import GenerationSpec, PlanChoice
from asymflow.models.embedded import plans

FILE = Path(__file__).with_name("golden.json")
AGAIN = "If it is meant: python -m tests.generation.test_golden writes golden.json again."

SIZES = ((32, 32), (64, 64))
CASES = [(plan, size) for plan in plans.NAMES for size in SIZES] + [("draft", (128, 96))]

TOLERANCE = 3
"""Of 255, for the mean colours of 8 x 8 fields where kernels may round differently."""


@contextmanager
def one_thread() -> Generator[None]:
    """Sums are split among threads, so their number decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, str]:
    """What decides the bits: kernels are chosen by the abilities of the CPU."""
    info = Path("/proc/cpuinfo")
    text = info.read_text("utf-8") if info.exists() else ""
    vendor = re.search(r"^vendor_id\s*: (.*)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.M)
    abilities = " ".join(sorted(flags[1].split())) if flags else ""
    return {
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "vendor": vendor[1] if vendor else platform.processor(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "flags": hashlib.sha256(abilities.encode()).hexdigest()[:16],
    }


def load() -> pipeline.Model:
    return pipeline.load(None, dtype="float32", device="cpu")


def ignore(count: int, look: object) -> None:
    """Nobody watches the steps."""


def made(model: pipeline.Model, plan: str, size: tuple[int, int]) -> dict[str, Any]:
    """Hash and thumbnail of one picture."""
    wanted = GenerationSpec(
        prompt="a fox in the snow",
        negative="text",
        style="noto",
        size=size,
        seed=11,
        count=1,
        guidance=5.0,
        plan=PlanChoice(preset=plan),
        image=None,
        mask=None,
        strength=1.0,
        background=None,
        model=None,
        needs=None,
        dtype=None,
        device=None,
    )
    with one_thread():
        [image] = pipeline.make(model, pipeline.jobs(model, wanted), ignore)
    pixels = np.round(image.picture * 255).astype(np.uint8)
    fields = pixels.reshape(8, size[0] // 8, 8, size[1] // 8, -1).mean((1, 3))
    return {
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "thumbnail": np.round(fields).astype(int).flatten().tolist(),
    }


def name(plan: str, size: tuple[int, int]) -> str:
    return f"{plan} {size[1]}x{size[0]}"


@pytest.fixture(scope="module")
def model() -> pipeline.Model:
    return load()


@pytest.mark.parametrize(("plan", "size"), CASES, ids=[name(*case) for case in CASES])
def test_pictures_are_those_remembered(
    model: pipeline.Model, plan: str, size: tuple[int, int]
) -> None:
    golden = json.loads(FILE.read_text("utf-8"))
    before, now = golden["pictures"][name(plan, size)], made(model, plan, size)
    off = np.abs(np.subtract(now["thumbnail"], before["thumbnail"])).max()
    assert off <= TOLERANCE, f"Colours are off by {off} of 255. {AGAIN}"
    if golden["machine"] == machine():
        assert now["sha256"] == before["sha256"], f"The bits differ, not the colours. {AGAIN}"


def test_a_picture_is_the_same_twice(model: pipeline.Model) -> None:
    assert made(model, *CASES[0]) == made(model, *CASES[0])


def write() -> None:
    model = load()
    pictures = {name(*case): made(model, *case) for case in CASES}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(pictures[key])}" for key in pictures)
    FILE.write_text(
        f'{{"machine": {json.dumps(machine())},\n"pictures": {{\n{lines}\n}}}}\n', "utf-8"
    )


if __name__ == "__main__":
    write()
