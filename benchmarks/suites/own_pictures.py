"""Twenty pictures that are no emoji, as references: photographs, clip art and scribbles.

    apt install openclipart-svg; pip install --no-deps scikit-image
    python -m benchmarks own_pictures OUT --weights FILE

Clip art is from Open Clip Art (public domain), photographs are those of scikit-image that are in
the public domain or CC0; scribbles are drawn here. Writes `own-pictures.png` (the reference, then
the model's drawing of it in each style) and `own-pictures.json`: how near each drawing is to its
reference, in the features of the bench, beside how near it comes without the reference.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from asymflow.bench import metrics
from asymflow.bench.features import extract, load_network
from asymflow.core import engine, presets
from asymflow.core.types import Request
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.render import render_svg
from benchmarks import results

CLIP_ART = Path("/usr/share/openclipart/svg")
SIZE = (64, 64)
STYLES = ("noto", "fluent-3d", "twemoji", "streamline")


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """A picture of somebody's, what they would call it, and where it is from."""

    prompt: str
    pixels: NDArray[np.float32]
    source: str


PHOTOS = (
    # file, what it is called, part that shows it (left, top, right, bottom), source and licence
    ("chelsea.png", "a cat", (90, 0, 390, 300), "S. van der Walt, CC0"),
    ("coffee.png", "a cup of coffee", (140, 20, 520, 400), "R. Michetti, CC0"),
    ("astronaut.png", "an astronaut", (60, 0, 420, 360), "NASA, public domain"),
    ("rocket.jpg", "a rocket", (210, 0, 430, 220), "SpaceX, public domain"),
    ("clock_motion.png", "a clock", (0, 0, 300, 300), "S. van der Walt, CC0"),
    ("horse.png", "a horse", (0, 0, 400, 328), "A. Schneider, CC0"),
)
DRAWINGS = (
    ("buildings/lighthouse_matthew_gates_.svg", "a lighthouse"),
    ("computer/icons/new_penguin_charles_mcco_01.svg", "a penguin"),
    ("animals/mammals/elephant_01.svg", "an elephant"),
    ("food/beverages/a_teapot_01.svg", "a teapot"),
    ("recreation/sand_castle_nathan_hawke_01.svg", "a sand castle"),
    ("food/bowl_of_steaming_soup_01.svg", "a bowl of soup"),
    ("recreation/sports/blowling_ball_01.svg", "a bowling ball"),
)


def photographs() -> list[Own]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("scikit-image is not installed: pip install --no-deps scikit-image")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    found: list[Own] = []
    for name, prompt, box, credit in PHOTOS:
        with Image.open(folder / name) as image:
            cut = image.convert("RGBA").crop(box)
        pixels = np.asarray(cut, np.float32) / np.float32(255)
        found.append(Own(prompt, pixels, f"photograph, {credit}"))
    return found


def clip_art() -> list[Own]:
    if not CLIP_ART.exists():
        raise SystemExit("Open Clip Art is not installed: apt install openclipart-svg")
    return [
        Own(
            prompt,
            np.asarray(render_svg((CLIP_ART / path).read_text("utf-8"), 256), np.float32)
            / np.float32(255),
            "Open Clip Art, public domain",
        )
        for path, prompt in DRAWINGS
    ]


def scribbles() -> list[Own]:
    """Lines of a wide pen on white paper, as a child would draw them."""
    ink = (30, 30, 60, 255)
    red, green, blue, yellow = "#d33", "#3a5", "#36c", "#fc3"

    def paper(draw_on: Any) -> NDArray[np.float32]:
        image = Image.new("RGBA", (256, 256), "white")
        draw_on(ImageDraw.Draw(image))
        return np.asarray(image, np.float32) / np.float32(255)

    def fish(d: ImageDraw.ImageDraw) -> None:
        d.ellipse((40, 80, 180, 180), fill=blue, outline=ink, width=9)
        d.line([(172, 130), (226, 84), (222, 178), (172, 130)], fill=ink, width=9, joint="curve")
        d.ellipse((70, 112, 84, 126), fill=ink)

    def house(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((58, 120, 198, 224), fill=yellow, outline=ink, width=9)
        d.polygon([(40, 124), (130, 36), (216, 122)], fill=red)
        d.line([(40, 124), (130, 36), (216, 122), (40, 124)], fill=ink, width=9, joint="curve")
        d.line([(112, 224), (112, 168), (148, 168), (148, 224)], fill=ink, width=9, joint="curve")

    def tree(d: ImageDraw.ImageDraw) -> None:
        d.line([(128, 234), (126, 150)], fill="#853", width=30)
        for x, y in ((84, 110), (128, 74), (172, 112), (128, 124)):
            d.ellipse((x - 48, y - 44, x + 48, y + 44), fill=green)

    def car(d: ImageDraw.ImageDraw) -> None:
        d.polygon([(24, 176), (28, 132), (84, 126), (112, 84), (176, 86), (204, 130), (234, 138),
                   (234, 176)], fill=green)  # fmt: skip
        for x in (80, 186):
            d.ellipse((x - 26, 152, x + 26, 204), fill=(40, 40, 40, 255))

    def flower(d: ImageDraw.ImageDraw) -> None:
        d.line([(128, 240), (124, 130)], fill=green, width=12)
        for angle in np.arange(6) * np.pi / 3:
            x, y = 126 + 46 * np.cos(angle), 96 + 46 * np.sin(angle)
            d.ellipse((x - 28, y - 28, x + 28, y + 28), fill="#e6a")
        d.ellipse((104, 74, 148, 118), fill=yellow)

    def face(d: ImageDraw.ImageDraw) -> None:
        d.ellipse((34, 30, 224, 222), outline=ink, width=9)
        for x in (92, 166):
            d.ellipse((x - 9, 92, x + 9, 116), fill=ink)
        d.arc((80, 96, 178, 186), 15, 165, fill=ink, width=9)

    def boat(d: ImageDraw.ImageDraw) -> None:
        d.polygon([(40, 176), (220, 170), (186, 220), (76, 222)], fill=red)
        d.line([(128, 176), (130, 30)], fill=ink, width=9, joint="curve")
        d.polygon([(140, 44), (206, 150), (140, 154)], fill=blue)

    named = {
        "a fish": fish, "a house": house, "a tree": tree, "a car": car, "a flower": flower,
        "a smiling face": face, "a sailboat": boat,
    }  # fmt: skip
    return [Own(prompt, paper(drawn), "drawn by this script") for prompt, drawn in named.items()]


QUICK = {"steps": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=14)


def run(given: argparse.Namespace) -> dict[str, Any]:
    adapter = embedded.load(given.weights)
    network = load_network()
    plan = presets.Grid(steps=given.steps).plan(SIZE)
    own = photographs() + clip_art() + scribbles()

    def drawn(with_reference: bool) -> list[list[NDArray[np.float32]]]:
        rows: list[list[NDArray[np.float32]]] = []
        for number, each in enumerate(own):
            reference = {"reference": each.pixels if with_reference else None}
            requests = [
                Request(
                    {"prompt": each.prompt, "style": style, **reference},
                    SIZE,
                    number,
                    presets.GUIDANCE,
                )
                for style in STYLES
            ]
            rows.append([result.picture for result in engine.run(adapter, plan, requests)])
        return rows

    asked = (Request({"reference": each.pixels}, SIZE) for each in own)
    shown = [adapter.find_references(request)[0][0] for request in asked]
    real = extract(np.stack(shown), network)
    found, distances = drawn(True), {}
    for name, rows in (("with", found), ("without", drawn(False))):
        features = extract(np.stack([picture for row in rows for picture in row]), network)
        each = metrics.cosine_distance(features, np.repeat(real, len(STYLES), axis=0))
        distances[name] = each.reshape(len(own), len(STYLES)).mean(axis=1)
    report = {
        "model": adapter.name,
        "plan": plan.name,
        "styles": STYLES,
        "nearer to the reference than without it": int(
            (distances["with"] < distances["without"]).sum()
        ),
        "pictures": [
            {
                "prompt": each.prompt,
                "source": each.source,
                "distance to the reference": round(float(a), 4),
                "without it": round(float(b), 4),
            }
            for each, a, b in zip(own, distances["with"], distances["without"], strict=True)
        ],
    }
    described = results.on_adapters([adapter], {plan.name: plan})
    whole = results.save(given.out / "own-pictures.json", report, **described)
    picture = sheet(
        [[reference, *row] for reference, row in zip(shown, found, strict=True)],
        row_labels=[each.prompt for each in own],
        col_labels=["reference", *STYLES],
    )
    with replacing(given.out / "own-pictures.png") as file:
        picture.save(file, "PNG", optimize=True)
    return whole
