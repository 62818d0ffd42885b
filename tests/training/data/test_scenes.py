"""Scenes: what the sentence says is where the plan puts it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from asymflow.models.embedded.bitmaps import Pixels
from asymflow.models.embedded.layout import Box, paste
from asymflow.training.data import backgrounds, scenes
from asymflow.training.data.manifest import Entry
from asymflow.training.data.scenes import BIG, Placed, Scene, Thing, canvas_sizes, draw, plan

NAMES = ("otter", "zebra", "gorilla", "kangaroo", "badger", "sloth")
CANVASES = ((64, 64), (64, 128), (128, 64), (32, 32), (80, 56))


def thing(index: int) -> Thing:
    entry = Entry(
        index=index, key=NAMES[index], slug="", style="noto", name=NAMES[index], keywords=(),
        group="animals-nature", subgroup="", weight=1.0, split="train", flip_ok=True,
        licence="MIT", package="", version="",
    )  # fmt: skip
    inks = ((0.1, 0.1, 0.9, 0.9), (0.3, 0.05, 0.7, 0.95), (0.0, 0.25, 1.0, 0.75))
    return Thing(entry, inks[index % 3])


THINGS = tuple(thing(index) for index in range(len(NAMES)))


def plans(count: int = 1500) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [plan(rng, THINGS, *CANVASES[i % len(CANVASES)]) for i in range(count)]


SCENES = plans()


def placed(scene: Scene, name: str) -> Placed:
    return next(item for item in scene.placed if name in words(item))


def words(item: Placed) -> str:
    return item.thing.entry.name


def centre(item: Placed) -> tuple[float, float]:
    box = item.box
    return (box.top + box.bottom) / 2, (box.left + box.right) / 2


A = r"(?:an? (?:big |large |small )?(?P<a>\w+))"
B = r"(?:an? (?:big |large |small )?(?P<b>\w+))"
LEFT_OF: Callable[[Placed, Placed], bool] = lambda a, b: a.box.right <= b.box.left  # noqa: E731
ABOVE: Callable[[Placed, Placed], bool] = lambda a, b: a.box.bottom <= b.box.top  # noqa: E731
RELATIONS: tuple[tuple[str, Callable[[Placed, Placed], bool]], ...] = (
    (rf"{A} (to the left of|left of|on the left of) {B}", LEFT_OF),
    (rf"{B} (to the right of|right of|on the right of) {A}", LEFT_OF),
    (rf"{A} on the left and {B} on the right", LEFT_OF),
    (rf"{A} (above|over|on top of) {B}", ABOVE),
    (rf"{B} (below|under|underneath) {A}", ABOVE),
    (rf"{A} at the top and {B} at the bottom", ABOVE),
)


@pytest.mark.parametrize(("pattern", "holds"), RELATIONS)
def test_relations_hold(pattern: str, holds: Callable[[Placed, Placed], bool]) -> None:
    found = 0
    for scene in SCENES:
        if match := re.fullmatch(pattern, scene.sentence):
            found += 1
            a, b = placed(scene, match["a"]), placed(scene, match["b"])
            assert holds(a, b), scene.sentence
            assert len(scene.placed) == 2
    assert found >= 15


def test_everything_placed_is_named_and_nothing_else() -> None:
    for scene in SCENES:
        shown = {words(item) for item in scene.placed}
        named = {name for name in NAMES if re.search(rf"\b{name}s?\b", scene.sentence)}
        assert shown == named, scene.sentence


def test_counts_match() -> None:
    found: dict[int, int] = {}
    for scene in SCENES:
        if match := re.fullmatch(r"(two|three|four|2|3|4) (\w+)s", scene.sentence):
            count = {"two": 2, "three": 3, "four": 4}.get(match[1]) or int(match[1])
            assert len(scene.placed) == count
            assert {words(item) for item in scene.placed} == {match[2]}
            longest = [max(item.box.height, item.box.width) for item in scene.placed]
            assert max(longest) - min(longest) <= 1  # cells may differ by a pixel
            found[count] = found.get(count, 0) + 1
    assert found.keys() == {2, 3, 4}


def test_rows_and_columns_are_in_order() -> None:
    found = 0
    for scene in SCENES:
        if len(scene.placed) != 3 or len({words(item) for item in scene.placed}) != 3:
            continue
        found += 1
        names = re.findall("|".join(NAMES), scene.sentence)
        if " between " in scene.sentence:
            names = [names[1], names[0], names[2]]
        items = [placed(scene, name) for name in names]
        stacked = re.search("above|top to bottom|stacked", scene.sentence)
        before = ABOVE if stacked else LEFT_OF
        assert before(items[0], items[1]), scene.sentence
        assert before(items[1], items[2]), scene.sentence
    assert found > 50


def test_sizes_are_as_said() -> None:
    said = 0
    for scene in SCENES:
        sizes = dict(re.findall(r"an? (big|large|small) (\w+)", scene.sentence))
        if len(scene.placed) != 2 or not sizes:
            continue
        said += 1
        first, second = (max(item.box.height, item.box.width) for item in scene.placed)
        ratio = first / second
        assert ratio >= BIG or ratio <= 1 / BIG, scene.sentence
        for item, bigger in zip(scene.placed, (ratio > 1, ratio < 1), strict=True):
            match = re.search(rf"(big|large|small) {words(item)}", scene.sentence)
            assert match is None or (match[1] != "small") == bigger, scene.sentence
    assert said > 30


def test_corners_and_edges() -> None:
    found = 0
    for scene in SCENES:
        if len(scene.placed) != 1:
            continue
        found += 1
        y, x = centre(scene.placed[0])
        text = scene.sentence
        across, down = x / scene.width, y / scene.height
        assert ("left" in text) == (across < 0.4), text
        assert ("right" in text) == (across > 0.6), text
        assert ("top" in text) == (down < 0.4), text
        assert ("bottom" in text) == (down > 0.6), text
        longest = max(scene.placed[0].box.height, scene.placed[0].box.width)
        if "small" in text:
            assert longest <= 0.35 * min(scene.height, scene.width)
    assert found > 100


def test_things_lie_inside_and_apart() -> None:
    for scene in SCENES:
        for item in scene.placed:
            assert item.box.top >= 0
            assert item.box.left >= 0
            assert item.box.bottom <= scene.height
            assert item.box.right <= scene.width
            assert min(item.box.height, item.box.width) >= 1
        for i, one in enumerate(scene.placed):
            for two in scene.placed[:i]:
                apart = LEFT_OF(one, two) or LEFT_OF(two, one) or ABOVE(one, two)
                assert apart or ABOVE(two, one), scene.sentence


def test_shapes_are_kept() -> None:
    for scene in SCENES:
        for item in scene.placed:
            top, left, bottom, right = item.thing.ink
            wanted = (bottom - top) / (right - left)
            # Sides are whole pixels: each is off by at most a half.
            low = (item.box.height - 0.5) / (item.box.width + 0.5)
            high = (item.box.height + 0.5) / (item.box.width - 0.5)
            assert low <= wanted <= high


def test_captions_keep_the_sentence() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES[:300]:
        text = scenes.caption(scene, rng, style=True, background="orange").lower()
        assert scene.sentence.lower() in text
        assert "noto" in text
        assert "orange" in text
        assert "a orange" not in text


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_canvas_sizes(resolution: int) -> None:
    sizes = canvas_sizes(resolution)
    assert (resolution, resolution) in sizes
    assert (resolution, 2 * resolution) in sizes
    assert (2 * resolution, resolution) in sizes
    assert len(set(sizes)) == len(sizes)
    for height, width in sizes:
        assert height % 8 == 0
        assert width % 8 == 0
        same_short = min(height, width) == resolution
        same_area = abs(height * width / resolution**2 - 1) < 0.35
        assert same_short or same_area
        assert 0.3 < height / width < 3.1


def test_drawing_fills_each_box() -> None:
    def picture(index: int, side: int) -> Pixels:
        del side
        image = np.zeros((64, 64, 4), np.uint8)
        top, left, bottom, right = (round(64 * edge) for edge in THINGS[index].ink)
        image[top:bottom, left:right] = (0, 40 * index, 200, 255)
        return image

    for scene in SCENES[:200]:
        pixels = draw(scene, picture)
        assert pixels.shape == (scene.height, scene.width, 4)
        expected = np.zeros((scene.height, scene.width), bool)
        for item in scene.placed:
            box = item.box
            window = pixels[box.top : box.bottom, box.left : box.right]
            assert (window == (0, 40 * item.thing.entry.index, 200, 255)).mean() > 0.8
            expected[box.top : box.bottom, box.left : box.right] = True
        assert (pixels[~expected] == 0).all()


def test_flipped_things_are_mirrored() -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, :16] = 255
    whole = Thing(THINGS[0].entry, (0.0, 0.0, 1.0, 1.0))
    for flip, lit in ((False, slice(0, 16)), (True, slice(16, 32))):
        item = Placed(whole, Box(0, 0, 32, 32), flip)
        pixels = draw(Scene(32, 32, (item,), ""), lambda index, side: image)
        assert (pixels[:, lit] == 255).all()
        assert pixels.sum() == image.sum()


def test_paste_is_over() -> None:
    canvas = np.full((1, 1, 4), (100, 0, 0, 200), np.uint8)
    paste(canvas, np.full((1, 1, 4), (0, 60, 0, 128), np.uint8), 0, 0)
    # top + bottom * (1 - 128/255)
    assert canvas[0, 0].tolist() == [50, 60, 0, 228]


def test_lay_on_a_background() -> None:
    picture = np.array([[[0, 60, 0, 128], [0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8)
    ground = np.full((1, 3, 3), 200, np.uint8)
    result = backgrounds.composite(picture, ground)
    assert result[0, :, 3].tolist() == [255, 255, 255]
    assert result[0, 0, :3].tolist() == [100, 160, 100]
    assert result[0, 1, :3].tolist() == [200, 200, 200]
    assert result[0, 2, :3].tolist() == [9, 9, 9]


def test_backgrounds_stand_out_and_are_named_right() -> None:
    rng = np.random.default_rng(0)
    things = rng.uniform(0, 255, (500, 1, 3))
    chosen = backgrounds.choose(rng, things)
    table = {colour.name: colour.rgb for colour in backgrounds.COLOURS}
    fades = 0
    for row, name in enumerate(chosen.names):
        upper, _, lower = name.removesuffix(" gradient").partition(" to ")
        fades += bool(lower)
        for said, shown in ((upper, chosen.upper[row]), (lower or upper, chosen.lower[row])):
            off = np.abs(np.array(table[said]) - shown.astype(int))
            assert off.max() <= backgrounds.JITTER
            assert np.linalg.norm(np.array(table[said]) - things[row, 0]) > backgrounds.CONTRAST
    assert 0.08 < fades / 500 < 0.22


def test_gradient_runs_from_top_to_bottom() -> None:
    black, white = np.zeros((1, 3), np.uint8), np.full((1, 3), 255, np.uint8)
    column = backgrounds.gradient(black, white, 6)
    assert column.shape == (1, 6, 1, 3)
    assert column[0, :, 0, 0].tolist() == [0, 51, 102, 153, 204, 255]
