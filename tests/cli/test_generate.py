"""`asymflow generate`, from the command line to the pixels and what the file says about them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from asymflow.core import devices
from asymflow.core.schedules import plan_of, uniform
from asymflow.generation import metadata
from asymflow.io import images
from asymflow.io.images import Notes
from asymflow.planning import plan_files
from asymflow.planning.plan_json import plan_hash
from tests.fakes import FakeModel

from .conftest import Type

FOX = ("generate", "a fox", "--steps", "4")


def pixels(path: Path | str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def record(path: Path | str) -> metadata.Record:
    text = images.read_record(Path(path))
    assert text is not None
    return metadata.from_json(text, str(path))


def test_a_picture_lies_in_the_current_folder_and_is_named_on_stdout(
    model: FakeModel, type_: Type
) -> None:
    typed = type_(*FOX, "--seed", "7")
    assert (typed.code, typed.out) == (0, "a-fox-7.png\n")
    assert "seed 7" in typed.err
    assert pixels("a-fox-7.png").shape == (64, 64, 4)


def test_made_up_names_never_overwrite(model: FakeModel, type_: Type, here: Path) -> None:
    before = here / "a-fox-7.png"
    before.write_text("precious")
    typed = type_(*FOX, "--seed", "7")
    assert typed.out == "a-fox-7-2.png\n"
    assert before.read_text() == "precious"


def test_seeds_count_up_and_a_picture_does_not_depend_on_its_neighbours(
    model: FakeModel, type_: Type
) -> None:
    typed = type_(*FOX, "--seed", "7", "-n", "3")
    assert typed.out.split() == ["a-fox-7.png", "a-fox-8.png", "a-fox-9.png"]
    type_(*FOX, "--seed", "9", "-o", "alone.png")
    assert np.array_equal(pixels("a-fox-9.png"), pixels("alone.png"))
    assert not np.array_equal(pixels("a-fox-8.png"), pixels("a-fox-9.png"))
    assert [record(name).seed for name in typed.out.split()] == [7, 8, 9]


@pytest.mark.parametrize("batch", [None, 2])
def test_a_model_that_takes_several_gets_them_together(
    batch: int | None, model: FakeModel, type_: Type
) -> None:
    type_(*FOX, "--seed", "7", "-n", "3", "-o", "one.png")
    one_by_one, model.calls, model.batch = model.calls, 0, batch
    type_(*FOX, "--seed", "7", "-n", "3", "-o", "many.png")
    assert model.calls == one_by_one * (1 if batch is None else 2) / 3
    assert np.array_equal(pixels("one-3.png"), pixels("many-3.png"))


def test_a_given_name_is_numbered_and_overwritten(
    model: FakeModel, type_: Type, here: Path
) -> None:
    (here / "fox.png").write_text("old")
    assert type_(*FOX, "-n", "2", "-o", "fox.png").out.split() == ["fox.png", "fox-2.png"]
    assert pixels("fox.png").shape == (64, 64, 4)


@pytest.mark.parametrize(
    ("output", "file", "format"),
    [
        ("new/", "new/a-fox-1.png", "PNG"),
        ("deep/er/fox", "deep/er/fox.png", "PNG"),
        ("FOX.JPG", "FOX.jpg", "JPEG"),
        ("fox.webp", "fox.webp", "WEBP"),
    ],
)
def test_the_output_decides_folder_name_and_format(
    output: str, file: str, format: str, model: FakeModel, type_: Type
) -> None:
    assert type_(*FOX, "--seed", "1", "-o", output).out.strip() == file
    with Image.open(file) as image:
        assert image.format == format


def test_an_existing_folder_needs_no_slash(model: FakeModel, type_: Type, here: Path) -> None:
    (here / "album").mkdir()
    assert type_(*FOX, "--seed", "1", "-o", "album").out.strip() == "album/a-fox-1.png"


def test_the_format_option_names_the_suffix(model: FakeModel, type_: Type) -> None:
    assert type_(*FOX, "--seed", "1", "--format", "jpeg").out.strip() == "a-fox-1.jpg"


def test_json_is_one_object_and_says_everything(model: FakeModel, type_: Type) -> None:
    typed = type_(*FOX, "--seed", "7", "-n", "2", "--style", "noto", "--json")
    said: dict[str, Any] = json.loads(typed.out)
    assert said["files"] == ["a-fox-7.png", "a-fox-8.png"]
    assert said["seeds"] == [7, 8]
    assert (said["prompt"], said["style"], said["size"]) == ("a fox", "noto", "64x64")
    assert said["model"] == "fake:abab"
    assert said["plan"]["steps"] == 4
    assert said["plan"]["hash"] == plan_files.plan_hash(record("a-fox-7.png").plan)
    assert said["settings"]["weights"] == model.weights_hash
    assert said["seconds"] > 0
    assert said["load_seconds"] > 0
    assert typed.err == ""


def test_the_seed_is_random_but_told(model: FakeModel, type_: Type) -> None:
    seeds = {json.loads(type_(*FOX, "--json").out)["seeds"][0] for _ in range(3)}
    assert len(seeds) == 3


def test_forwards_count_guidance_only_in_its_interval(model: FakeModel, type_: Type) -> None:
    def forwards(*words: str) -> int:
        return json.loads(type_(*FOX, "--json", *words).out)["forwards"]

    assert forwards("--guidance-interval", "0:1") == 8
    assert forwards("--guidance-interval", "1:1") == 5
    assert forwards("--guidance", "1") == 4
    assert forwards("--solver", "heun", "--guidance", "1") == 7


def test_like_makes_the_same_pixels(model: FakeModel, type_: Type) -> None:
    type_(
        *FOX, "--seed", "7", "--style", "noto", "--size", "32x48", "--guidance", "2.5",
        "--negative", "blue", "--solver", "heun", "--background", "gold", "-o", "first.png",
    )  # fmt: skip
    assert type_("generate", "--like", "first.png", "-o", "again.webp").code == 0
    assert np.array_equal(pixels("first.png"), pixels("again.webp"))
    assert record("first.png") == record("again.webp")
    assert pixels("first.png").shape == (48, 32, 3)


def test_like_works_from_every_format(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--seed", "7", "-o", "first.png", "--background", "white")
    for name in ("again.jpg", "again.webp"):
        type_("generate", "--like", "first.png", "-o", name)
        type_("generate", "--like", name, "-o", "third.png")
        assert np.array_equal(pixels("first.png"), pixels("third.png")), name


def test_other_options_override_like(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--seed", "7", "--solver", "euler", "-o", "first.png")
    type_("generate", "--like", "first.png", "--seed", "8", "-o", "second.png")
    type_(*FOX, "--seed", "8", "--solver", "euler", "-o", "direct.png")
    assert np.array_equal(pixels("second.png"), pixels("direct.png"))
    type_("generate", "a bee", "--like", "first.png", "--steps", "6", "-o", "bee.png")
    bee = record("bee.png")
    assert (bee.prompt, bee.seed, len(bee.plan.steps)) == ("a bee", 7, 6)
    assert bee.plan.steps[0].solver == "euler"


def test_like_at_another_size_plans_for_that_size(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--seed", "7", "-o", "first.png")
    type_("generate", "--like", "first.png", "--size", "128", "-o", "second.png")
    type_(*FOX, "--seed", "7", "--size", "128", "-o", "direct.png")
    assert record("second.png") == record("direct.png")
    assert np.array_equal(pixels("second.png"), pixels("direct.png"))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("ab" * 32, ("abababababab", "--model REF")),
        # These came with asymflow before.
        (
            "e11a8aadabb0308afecd49022b89c4ee64e10754f47b6638a6d0ff1151a3ab5f",
            ("git show 624cd02:", "--model embedded-e11a8aad.safetensors"),
        ),
    ],
)
def test_like_refuses_other_weights_and_names_those_it_needs(
    model: FakeModel, type_: Type, here: Path, weights: str, said: tuple[str, ...]
) -> None:
    model.weights_hash = weights
    type_(*FOX, "-o", "first.png")
    model.weights_hash = "cd" * 32
    typed = type_("generate", "--like", "first.png", "-o", "again.png")
    assert typed.code == 2
    assert all(words in typed.err for words in said)
    assert not (here / "again.png").exists()


def test_a_plan_file_is_used_as_it_is(model: FakeModel, type_: Type, here: Path) -> None:
    plan = plan_of(uniform(3), solver="heun", name="mine")
    plan_files.save_plan(plan, here / "mine.json")
    type_("generate", "a fox", "--plan", "mine.json", "-o", "fox.png")
    assert record("fox.png").plan == plan
    type_("generate", "--like", "fox.png", "--seed", "3", "-o", "again.png")
    assert record("again.png").plan == plan


def test_a_picture_that_left_its_plan_is_repeated_by_the_steps_that_it_made(
    model: FakeModel, type_: Type, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As version 0.1 left it: a plan with rules, and what the picture decided."""
    made = plan_of((1.0, 5 / 6, 1 / 2, 5 / 12, 1 / 3, 1 / 6, 0.0), name="mine")
    plan_files.save_plan(made, here / "made.json")
    type_("generate", "a fox", "--seed", "3", "--plan", "made.json", "-o", "fox.png")
    steps = plan_of(uniform(6), name="mine")
    data: dict[str, Any] = metadata.to_json(replace(record("fox.png"), plan=steps)) | {
        "decisions": [
            {"step": 1, "action": "skip", "surprise": 0.5},
            {"step": 3, "action": "insert", "surprise": 0.5},
        ]
    }
    rules = [
        {"step": 1, "action": "skip", "surprise": 1e9},
        {"step": 3, "action": "insert", "surprise": 0.0},
    ]
    names = {"surprise": "prediction_residual"}
    data["plan"]["adaptive"] = [{names.get(k, k): v for k, v in rule.items()} for rule in rules]
    data["plan_hash"] = plan_hash(steps, rules)
    with Path("old.png").open("wb") as file:
        blank = np.zeros((8, 8, 4), np.float32)
        images.write(file, blank, format="png", notes=Notes("", json.dumps(data), ""))
    typed = type_("generate", "--like", "old.png", "-o", "again.png")
    assert typed.code == 0, typed.err
    assert [line for line in caplog.messages if "no longer run" in line] == [
        "old.png was made by a plan with rules for single pictures, which are no longer run. It is "
        "read as the steps that this picture made."
    ]
    assert np.array_equal(pixels("fox.png"), pixels("again.png"))
    assert record("again.png").plan.times == pytest.approx(made.times)


def test_a_plan_by_name(model: FakeModel, type_: Type) -> None:
    type_("generate", "a fox", "--plan", "default", "--seed", "1", "-o", "named.png")
    type_("generate", "a fox", "--seed", "1", "-o", "unnamed.png")
    assert np.array_equal(pixels("named.png"), pixels("unnamed.png"))


def test_the_prompt_comes_from_stdin_as_one_line(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" a fox\n  on blue\n"))
    type_("generate", "-", "--steps", "2", "-o", "fox.png")
    assert record("fox.png").prompt == "a fox on blue"


def test_words_decide_the_picture(model: FakeModel, type_: Type) -> None:
    made: dict[str, NDArray[np.uint8]] = {}
    for name, words in {
        "plain": ("a fox",),
        "prompt": ("a bee",),
        "style": ("a fox", "--style", "noto"),
        "negative": ("a fox", "--negative", "blue"),
        "guidance": ("a fox", "--guidance", "1.5"),
        "solver": ("a fox", "--solver", "euler"),
    }.items():
        type_("generate", *words, "--steps", "4", "--seed", "1", "-o", f"{name}.png")
        made[name] = pixels(f"{name}.png")
    for name in made.keys() - {"plain"}:
        assert not np.array_equal(made[name], made["plain"]), name


def test_a_style_is_found_by_any_of_its_names(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--style", "3D", "-o", "fox.png")
    assert record("fox.png").style == "fluent-3d"


def test_emoji_are_recorded_as_typed(model: FakeModel, type_: Type) -> None:
    type_("generate", "a 🦊", "--steps", "2", "--seed", "1", "-o", "emoji.png")
    assert record("emoji.png").prompt == "a 🦊"


def test_backgrounds(model: FakeModel, type_: Type) -> None:
    def corner(*words: str) -> tuple[int, ...]:
        type_(*FOX, "--seed", "1", *words)
        picture = pixels(words[-1])
        assert picture.shape[2] == (4 if "--transparent" in words else 3)
        return tuple(int(value) for value in picture[0, 0])

    clear = corner("--transparent", "-o", "clear.png")
    red = corner("--background", "red", "-o", "red.png")
    white = corner("-o", "white.jpg")
    alpha = clear[3] / 255
    for channel in range(3):
        over = clear[channel] * alpha
        assert red[channel] == pytest.approx(over + (1 - alpha) * (channel == 0) * 255, abs=1.5)
        assert white[channel] == pytest.approx(over + (1 - alpha) * 255, abs=12)


def test_a_number_type_is_passed_on_and_recorded(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--dtype", "bfloat16", "-o", "fox.png")
    assert str(model.dtypes[-1]) == "torch.bfloat16"
    type_("generate", "--like", "fox.png", "-o", "again.png")
    assert str(model.dtypes[-1]) == "torch.bfloat16"


def test_the_fastest_number_type_is_the_default_and_recorded(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(fastest: torch.dtype) -> None:
        def fast_dtype(device: torch.device) -> torch.dtype:
            return fastest

        monkeypatch.setattr(devices, "fast_dtype", fast_dtype)

    for here, elsewhere in permutations([torch.float32, torch.bfloat16]):
        machine(here)
        type_(*FOX, "-o", "fox.png")
        machine(elsewhere)
        type_("generate", "--like", "fox.png", "-o", "again.png")
        assert model.dtypes[-2:] == [here, here]


def test_png_carries_what_other_tools_read(model: FakeModel, type_: Type) -> None:
    words = ("--seed", "7", "--negative", "dogs", "--guidance", "3", "--style", "noto")
    type_(*FOX, *words, "-o", "fox.png")
    with Image.open("fox.png") as image:
        info = image.info
    prompt, negative, settings = info["parameters"].split("\n")
    assert (prompt, negative) == ("a fox", "Negative prompt: dogs")
    assert settings.startswith("Steps: 4, Sampler: damped2, CFG scale: 3, Seed: 7, Size: 64x64,")
    assert "Model hash: ababababab, Model: fake, Style: noto, Version: asymflow" in settings
    assert "digitalsourcetype/trainedAlgorithmicMedia" in info["XML:com.adobe.xmp"]
    assert json.loads(info["asymflow"])["seed"] == 7


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_jpeg_and_webp_carry_it_in_exif_and_xmp(suffix: str, model: FakeModel, type_: Type) -> None:
    type_("generate", "a fox é 🦊", "--steps", "4", "-o", f"fox.{suffix}")
    with Image.open(f"fox.{suffix}") as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        xmp: bytes = image.info["xmp"]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be").startswith("a fox é 🦊\nSteps: 4,")
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in xmp


def test_ctrl_c_keeps_whole_pictures_only(model: FakeModel, type_: Type, here: Path) -> None:
    model.interrupt_at = 6  # in the second picture
    typed = type_(*FOX, "--seed", "1", "-n", "3")
    assert typed.code == 130
    assert "Traceback" not in typed.err
    assert [path.name for path in here.iterdir()] == ["a-fox-1.png"]


def test_a_full_disk_leaves_nothing_half_written(
    model: FakeModel, type_: Type, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    typed = type_(*FOX)
    assert typed.code == 2
    assert "No space left on device" in typed.err
    assert list(here.iterdir()) == []


def test_the_preview_is_drawn_on_stderr_of_a_terminal_only(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "▀" not in type_(*FOX, "-o", "fox.png").err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    typed = type_(*FOX, "-o", "fox.png")
    assert "▀" in typed.err
    assert "▀" not in typed.out
    assert "▀" not in type_(*FOX, "--no-preview", "-o", "fox.png").err
