"""Wrong input: one message on stderr, exit code 2, nothing written, no model loaded for nothing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from asymflow.core.schedules import plan_of, uniform
from asymflow.io import images
from asymflow.planning import plan_files
from tests.fakes import FakeModel

from .conftest import Type


@pytest.fixture
def files(here: Path) -> Path:
    """Inputs that are fine, and inputs that are not."""
    Image.new("RGB", (64, 64), "red").save("red.png")
    Image.new("L", (64, 64), 255).save("mask.png")
    Image.new("L", (64, 32), 255).save("wide-mask.png")
    Image.new("L", (64, 64), 0).save("black-mask.png")
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save("clear-mask.png")
    corner = Image.new("L", (64, 64), 0)
    corner.paste(255, (0, 0, 64, 8))
    corner.save("corner-mask.png")
    whole = Path("red.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("words.png").write_text("these are words")
    Path("empty.png").write_bytes(b"")
    Path("bomb.png").write_bytes(bomb(9000, 9000))
    Path("huge-bomb.png").write_bytes(bomb(60000, 60000))
    Path("damaged.json").write_text('{"format": "asymflow plan", ')
    Path("foreign.json").write_text('{"format": "something else"}')
    plan_files.save_plan(plan_of(uniform(300)), Path("long.json"))
    return here


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that declares a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * (3 * width + 1))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


EARLY = [
    # prompts
    ([], "There is no prompt"),
    ([""], "The prompt is empty"),
    (["  \n "], "The prompt is empty"),
    (["x" * 10_000], "has 10000 characters, more than the limit of 1000"),
    (["a fox", "--negative", "x" * 1001], "negative prompt has 1001 characters"),
    (["a \x00fox"], "U+0000"),
    (["a \udcfffox"], "U+DCFF"),
    # numbers
    (["a fox", "--size", "0"], "has no pixels"),
    (["a fox", "--size", "-64"], "'-64' is not a size"),
    (["a fox", "--size", "64x"], "'64x' is not a size"),
    (["a fox", "--size", "9999999999"], "is not a size"),
    (["a fox", "--steps", "0"], "0 steps are not possible"),
    (["a fox", "--steps", "-3"], "-3 steps are not possible"),
    (["a fox", "--steps", "100000"], "Choose 1 to 256"),
    (["a fox", "--steps", "nan"], "--steps"),
    (["a fox", "--guidance", "nan"], "Guidance nan"),
    (["a fox", "--guidance", "inf"], "Guidance inf"),
    (["a fox", "--guidance", "0"], "Guidance 0"),
    (["a fox", "--guidance", "-1"], "Guidance -1"),
    (["a fox", "-n", "0"], "-n 0"),
    (["a fox", "-n", "-2"], "-n -2"),
    (["a fox", "--seed", "-1"], "Seed -1"),
    (["a fox", "--seed", str(2**63)], "is out of range"),
    (["a fox", "--seed", str(2**63 - 1), "-n", "2"], "is out of range"),
    (["a fox", "--seed", "1.5"], "--seed"),
    (["a fox", "--guidance-interval", "0.5"], "not a guidance interval"),
    (["a fox", "--guidance-interval", "1:0"], "1.0:0.0 is not a part of 0:1"),
    (["a fox", "--guidance-interval", "nan:1"], "nan:1.0 is not a part of 0:1"),
    (["a fox", "--guidance-interval", "0:2"], "0.0:2.0 is not a part of 0:1"),
    (["a fox", "--image", "red.png", "--strength", "0"], "Strength 0"),
    (["a fox", "--image", "red.png", "--strength", "nan"], "Strength nan"),
    (["a fox", "--image", "red.png", "--strength", "1.1"], "Strength 1.1"),
    # names
    (["a fox", "--solver", "eule"], "Did you mean 'euler'?"),
    (["a fox", "--dtype", "int8"], "Choose one of float32, bfloat16"),
    (["a fox", "--background", "bluish"], "'bluish' is not a colour"),
    (["a fox", "--background", "#ff000080"], "is not opaque"),
    (["a fox", "--format", "gif"], "Choose one of png, webp, jpeg"),
    (["a fox", "-o", "fox.gif"], "ends in .gif"),
    (["a fox", "--wrong"], "--wrong"),
    # options that contradict one another
    (["a fox", "--mask", "mask.png"], "Add --image"),
    (["a fox", "--strength", "0.5"], "Add --image"),
    (["a fox", "--transparent", "--background", "red"], "contradict"),
    (["a fox", "--transparent", "-o", "fox.jpg"], "JPEG knows no transparency"),
    (["a fox", "--format", "png", "-o", "fox.jpg"], "Drop one of the two"),
    (["a fox", "--guidance", "1", "--negative", "dogs"], "--guidance 1 does not steer"),
    (["a fox", "--plan", "default", "--steps", "3"], "--plan already decides --steps"),
    # files
    (["a fox", "--image", "gone.png"], "it is not there"),
    (["a fox", "--image", "."], "it is a folder"),
    (["a fox", "--image", "cut.png"], "cut.png is damaged or cut off"),
    (["a fox", "--image", "words.png"], "words.png is not a PNG, JPEG or WebP"),
    (["a fox", "--image", "empty.png"], "empty.png is not a PNG, JPEG or WebP"),
    (["a fox", "--image", "bomb.png"], "9000x9000 pixels, more than the 16 megapixels"),
    (["a fox", "--image", "huge-bomb.png"], "more than the 16 megapixels"),
    (["a fox", "--image", "red.png", "--mask", "cut.png"], "cut.png is damaged"),
    (["a fox", "--image", "red.png", "--mask", "wide-mask.png"], "has 64x32 pixels"),
    (["a fox", "--image", "red.png", "--mask", "black-mask.png"], "nothing would be repainted"),
    (["a fox", "--image", "red.png", "--mask", "clear-mask.png"], "nothing would be repainted"),
    (["--like", "red.png"], "does not say how it was made"),
    (["--like", "cut.png"], "damaged"),
    (["a fox", "--plan", "defalt"], "Did you mean 'default'?"),
    (["a fox", "--plan", "gone.json"], "Cannot read the plan"),
    (["a fox", "--plan", "damaged.json"], "damaged.json is not a JSON file, or a damaged one"),
    (["a fox", "--plan", "foreign.json"], "its format is 'something else'"),
    (["a fox", "--plan", "long.json"], "has 300 steps, more than the 256"),
    (["a fox", "-o", "/proc/nowhere/fox.png"], "Cannot write /proc/nowhere/fox.png"),
    (["a fox", "-o", "red.png/fox.png"], "Cannot write red.png/fox.png"),
    (["a fox", "-o", "x" * 300 + ".png"], "File name too long"),
]


@pytest.mark.parametrize(
    ("words", "expected"), EARLY, ids=[" ".join(words)[:60] or "no words" for words, _ in EARLY]
)
def test_refused_before_a_model_is_loaded(
    words: list[str], expected: str, model: FakeModel, files: Path, type_: Type
) -> None:
    before = sorted(files.rglob("*"))
    typed = type_("generate", *words)
    assert typed.code == 2
    assert expected in typed.err
    assert typed.err.startswith("error: ")
    assert typed.err.count("\n") == 1
    assert "Traceback" not in typed.err
    assert typed.out == ""
    assert sorted(files.rglob("*")) == before
    assert model.loads == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--style", "notto"], "Unknown style 'notto'"),
        (["--size", "65"], "is not possible"),
        (["--size", "99999"], "is not possible"),
        (["--size", "99999", "--image", "red.png"], "is not possible"),
        (
            ["--image", "red.png", "--mask", "corner-mask.png", "--size", "96x32"],
            "is cut off where the picture is cropped to 96x32",
        ),
        (["--device", "warp"], "The device 'warp' cannot be used"),
        (["--device", "meta"], "The device 'meta' cannot be used"),
    ],
)
def test_refused_before_anything_is_drawn(
    words: list[str], expected: str, model: FakeModel, files: Path, type_: Type
) -> None:
    before = sorted(files.rglob("*"))
    typed = type_("generate", "a fox", *words)
    assert typed.code == 2
    assert expected in typed.err
    assert typed.err.count("\n") == 1
    assert sorted(files.rglob("*")) == before
    assert model.calls == 0


def test_a_damaged_record_is_refused(model: FakeModel, type_: Type, here: Path) -> None:
    type_("generate", "a fox", "--steps", "2", "-o", "fox.png")
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    with Image.open("fox.png") as image:
        text: str = image.info["asymflow"]
        info.add_text("asymflow", text.replace('"t": 1.0', '"t": 0.9'))
        image.save("edited.png", pnginfo=info)
    typed = type_("generate", "--like", "edited.png")
    assert typed.code == 2
    assert "changed after the picture was made" in typed.err


def test_what_a_file_says_is_not_markup(model: FakeModel, type_: Type) -> None:
    typed = type_("generate", "a fox", "--image", "[red]gone[/red].png")
    assert "[red]gone[/red].png" in typed.err


def test_what_a_file_says_does_not_steer_the_terminal(
    model: FakeModel, type_: Type, here: Path
) -> None:
    path = here / "\x1b[2Jin\n.png"
    Image.new("RGB", (32, 32)).save(path)
    type_("generate", "a fox", "--image", path.name, "--steps", "1", "-o", "fox.png")
    path.unlink()
    typed = type_("generate", "--like", "fox.png")
    assert typed.code == 2
    assert "\\x1b[2Jin\\n.png" in typed.err
    assert "\x1b" not in typed.err
    assert typed.err.count("\n") == 1


def test_an_unknown_command_suggests_one(type_: Type) -> None:
    typed = type_("generat", "a fox")
    assert typed.code == 2
    assert "Did you mean 'generate'" in typed.err
    assert "asymflow --help" in typed.err


def test_the_error_of_the_parser_ends_before_the_next_move(type_: Type) -> None:
    typed = type_("bench", "plan", "default", "a fox")
    assert typed.code == 2
    assert "(a fox). See asymflow --help." in typed.err


def test_a_contact_sheet_cannot_be_repeated(model: FakeModel, type_: Type) -> None:
    type_("sheet", "a fox", "--steps", "1", "-o", "sheet.png")
    typed = type_("generate", "--like", "sheet.png")
    assert typed.code == 2
    assert "A contact sheet cannot be repeated" in typed.err


def test_our_own_mistakes_do_not_look_like_wrong_input(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(images, "write", broken)
    with pytest.raises(ZeroDivisionError):
        type_("generate", "a fox", "--steps", "1")
