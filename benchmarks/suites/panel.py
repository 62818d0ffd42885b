"""Sixty prompts that nobody tuned to: how many pictures show what was asked for.

    python -m benchmarks panel DATA OUT [--weights FILE]

Forty everyday prompts, one seed each and no picking, then ten of a thing in a colour and ten of two
things. Writes `panel.json` and the sheets `panel.png` and `composed.png`. The prompts were written
before any weights of the second design drew them, and no recipe, guidance scale or plan is chosen
by them.

A picture *shows* the thing if the nearest real drawing of all concepts and styles, in the features
of the bench, is one of it; *nearly*, if one of the nearest five is. It has its *colour* if that is
the colour of at least a third of what is drawn in colour. Of two things each half of the picture is
asked by itself. Real drawings, slightly moved and without themselves among the drawings, are asked
the same for scale.
"""

from __future__ import annotations

import argparse
import colorsys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bench import anchors, metrics
from asymflow.bench.features import extract, load_network
from asymflow.bench.quality import gallery_of, real_pictures
from asymflow.core import engine
from asymflow.core.types import Plan, Request
from asymflow.generation import pipeline
from asymflow.generation.sheets import sheet
from asymflow.io import folders
from asymflow.io.files import replacing
from asymflow.models.embedded.library import alone
from asymflow.planning import shelf
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry
from benchmarks import results

SIZE = (64, 64)
SEED = 2026
NEAREST = 5
DOG, CAT = "dog|dog face|guide dog|service dog", "cat|cat face|black cat|grinning cat"
TREE = "deciduous tree|evergreen tree|leafless tree|palm tree"
CAR = "automobile|oncoming automobile|racing car|police car|oncoming police car"
HOUSE = "house|house with garden|houses"
LAUGHING = (
    "face with tears of joy|grinning face|grinning face with big eyes|grinning face with smiling "
    "eyes|grinning face with sweat|grinning squinting face|beaming face with smiling eyes|rolling "
    "on the floor laughing|smiling face|smiling face with smiling eyes|slightly smiling face"
)
PANEL = (
    # what somebody types, and the names of drawings that show it
    ("a happy dog", DOG),
    ("a sleeping cat", CAT),
    ("an old tree", TREE),
    ("my red bicycle", "bicycle"),
    ("a birthday cake with candles", "birthday cake"),
    ("a slice of pizza", "pizza"),
    ("a cup of hot coffee", "hot beverage|teacup without handle"),
    ("a little house", HOUSE),
    ("a pirate ship", "ship|sailboat"),
    ("a rocket flying to the moon", "rocket"),
    ("a cute owl", "owl"),
    ("a bunch of grapes", "grapes"),
    ("a strawberry", "strawberry"),
    ("a yellow banana", "banana"),
    ("an umbrella in the rain", "umbrella|umbrella with rain drops|umbrella on ground"),
    ("a snowman", "snowman|snowman without snow"),
    ("a shiny crown", "crown"),
    ("an electric guitar", "guitar"),
    ("a football", "soccer ball|american football|rugby football"),
    ("a pair of glasses", "glasses|goggles|sunglasses"),
    ("a ghost", "ghost"),
    ("a robot", "robot"),
    ("an octopus", "octopus"),
    ("a whale in the sea", "whale|spouting whale"),
    ("a sunflower", "sunflower"),
    ("a cactus in a pot", "cactus"),
    ("a mushroom", "mushroom|brown mushroom"),
    ("a hamburger", "hamburger"),
    ("an ice cream", "ice cream|soft ice cream"),
    ("a fire engine", "fire engine"),
    ("an aeroplane", "airplane|small airplane|airplane departure|airplane arrival"),
    ("a steam train", "locomotive|train"),
    ("a teddy bear", "teddy bear"),
    ("a gift with a bow", "wrapped gift"),
    ("a light bulb", "light bulb"),
    ("a pair of scissors", "scissors"),
    ("a broken heart", "broken heart"),
    ("a laughing face", LAUGHING),
    ("a butterfly", "butterfly"),
    ("a turtle", "turtle"),
)
COLOURED = (
    ("a purple fox", "fox", "purple"),
    ("a blue apple", "red apple|green apple", "blue"),
    ("a green cat", CAT, "green"),
    ("a pink car", CAR, "pink"),
    ("an orange umbrella", "umbrella|umbrella with rain drops", "orange"),
    ("a red elephant", "elephant", "red"),
    ("a yellow whale", "whale|spouting whale", "yellow"),
    ("a green crown", "crown", "green"),
    ("a purple house", HOUSE, "purple"),
    ("a blue rose", "rose", "blue"),
)
TWO = (
    # left and right of each other, as the sentence has them
    ("a cat left of a dog", CAT, DOG),
    ("an apple next to a banana", "red apple|green apple", "banana"),
    ("a fox and a mushroom", "fox", "mushroom|brown mushroom"),
    ("a house left of a tree", HOUSE, TREE),
    ("a pizza and a hamburger", "pizza", "hamburger"),
    ("a car next to a bicycle", CAR, "bicycle"),
    ("a rocket and a star", "rocket", "star|glowing star"),
    ("a guitar left of a drum", "guitar", "drum|long drum"),
    ("a ghost and a pumpkin", "ghost", "jack-o-lantern"),
    ("a snowman next to a gift", "snowman|snowman without snow", "wrapped gift"),
)
HUES = {"red": 0, "orange": 30, "yellow": 55, "green": 120, "blue": 215, "purple": 280, "pink": 335}
"""Degrees."""
_COLOURFUL, _OWN = 0.25, 1 / 3
"""Least saturation and value of a pixel that has a hue, and share of these that makes a colour."""

QUICK = {"pictures": 2, "plan": "draft"}

Pixels = NDArray[np.float32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--plan", default=None, help="by default the one that people use")
    parser.add_argument("--pictures", type=int, default=len(PANEL), help="of every kind at most")


def shows(entry: Entry, wanted: str) -> bool:
    """Whether a drawing has one of the names."""
    return entry.name.lower() in wanted.split("|")


def hue_of(colour: str, picture: Pixels) -> float:
    """Share of the colourful pixels [h, w, 4], premultiplied, that are of a colour."""
    opaque = picture[picture[..., 3] > 0.5]
    plain = np.clip(opaque[:, :3] / opaque[:, 3:], 0, 1)
    found = np.array([colorsys.rgb_to_hsv(*map(float, pixel)) for pixel in plain]).reshape(-1, 3)
    found = found[(found[:, 1] > _COLOURFUL) & (found[:, 2] > _COLOURFUL)]
    if not len(found):
        return 0.0
    away = np.stack([np.abs((found[:, 0] * 360 - at + 180) % 360 - 180) for at in HUES.values()])
    return float((away.argmin(axis=0) == list(HUES).index(colour)).mean())


def halves(picture: Pixels) -> tuple[Pixels, Pixels]:
    """Left and right of where least is drawn in the middle half, each alone on its canvas."""
    drawn = picture[..., 3].sum(axis=0)
    width = len(drawn)
    middle = np.arange(width // 4, 3 * width // 4)
    # Of equally empty columns the one nearest to the middle.
    cut = int(min(middle, key=lambda at: (round(float(drawn[at]), 1), abs(at - width / 2))))
    parts: list[Pixels] = []
    for columns in (np.arange(width) < cut, np.arange(width) >= cut):
        levels = np.rint(picture * columns[None, :, None] * 255).astype(np.uint8)
        parts.append(alone(levels, SIZE).astype(np.float32) / np.float32(255))
    return parts[0], parts[1]


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load(
        None if given.weights is None else str(given.weights), dtype=None, device=None
    )
    plans = pipeline.plans_of(model, SIZE)
    plan = plans.get(given.plan or pipeline.usual_plan(model, SIZE), plans[shelf.DEFAULT])
    network = load_network()
    dataset = Dataset(given.data)
    common = [entry for entry in dataset.entries if entry.weight == 1]
    cached = partial(extract, network=network, cache=folders.cache() / "features")
    gallery = gallery_of(dataset, common, SIZE[0], cached)
    real = gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True)

    def ranks(
        pictures: Sequence[Pixels], wanted: Sequence[str], but: Sequence[int] = ()
    ) -> list[int]:
        """From 0: of the first drawing of the thing. `but` are rows not to be found."""
        features = extract(np.stack(pictures), network=network)
        likeness = features @ real.T
        for row, own in enumerate(but):
            likeness[row, own] = -np.inf
        order = np.argsort(-likeness, axis=1)
        return [
            next(rank for rank, at in enumerate(row.tolist()) if shows(common[at], name))
            for row, name in zip(order, wanted, strict=True)
        ]

    def of_real(wanted: Sequence[str]) -> list[int]:
        """The same of real drawings of the things, moved a little and without themselves."""
        own = [next(i for i, entry in enumerate(common) if shows(entry, name)) for name in wanted]
        moved = anchors.nudged(real_pictures(dataset, [common[i] for i in own], SIZE[0]), SEED)
        return ranks(list(moved), wanted, own)

    count = given.pictures
    panel, coloured, two = PANEL[:count], COLOURED[:count], TWO[:count]
    asked = {
        "panel": [prompt for prompt, _ in panel],
        "coloured": [prompt for prompt, *_ in coloured],
        "two": [prompt for prompt, *_ in two],
    }
    drawn = {kind: draw(model, plan, prompts) for kind, prompts in asked.items()}
    things = ranks(drawn["panel"], [words for _, words in panel])
    tinted = ranks(drawn["coloured"], [words for _, words, _ in coloured])
    hues = [hue_of(each[2], made) for each, made in zip(coloured, drawn["coloured"], strict=True)]
    parts = [part for picture in drawn["two"] for part in halves(picture)]
    sides = ranks(parts, [words for each in two for words in each[1:]])
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    report: dict[str, Any] = {
        "plan": plan.name,
        "seed": SEED,
        "everyday": counted(things),
        "everyday, real drawings": counted(of_real([words for _, words in panel])),
        "coloured": {
            **counted(tinted),
            "in their colour": sum(hue >= _OWN for hue in hues),
            "shown nearly, in their colour": sum(
                rank < NEAREST and hue >= _OWN for rank, hue in zip(tinted, hues, strict=True)
            ),
        },
        "two things": {
            "n": len(pairs),
            "one shown nearly": sum(min(pair) < NEAREST for pair in pairs),
            "both shown nearly": sum(max(pair) < NEAREST for pair in pairs),
        },
        "ranks": {
            **{prompt: rank for (prompt, _), rank in zip(panel, things, strict=True)},
            **{
                prompt: [rank, round(hue, 3)]
                for (prompt, *_), rank, hue in zip(coloured, tinted, hues, strict=True)
            },
            **{prompt: list(pair) for (prompt, *_), pair in zip(two, pairs, strict=True)},
        },
    }
    described = results.on_adapters([model.adapter], {plan.name: plan})
    whole = results.save(given.out / "panel.json", report, **described)
    for name, kinds in (("panel", ("panel",)), ("composed", ("coloured", "two"))):
        prompts = [prompt for kind in kinds for prompt in asked[kind]]
        pictures = [picture for kind in kinds for picture in drawn[kind]]
        rows = range(0, len(pictures), 10)
        picture = sheet(
            [pictures[row : row + 10] for row in rows],
            captions=[prompts[row : row + 10] for row in rows],
            scale=2,
        )
        with replacing(given.out / f"{name}.png") as file:
            picture.save(file, "PNG", optimize=True)
    return whole


def draw(model: pipeline.Model, plan: Plan, prompts: Sequence[str]) -> list[Pixels]:
    """One picture of every prompt, in whatever style the model chooses."""
    scale = model.card.guidance
    asked = [Request({"prompt": prompt}, SIZE, SEED + i, scale) for i, prompt in enumerate(prompts)]
    return [result.picture for result in engine.run(model.adapter, plan, asked)]


def counted(ranks: Sequence[int]) -> dict[str, Any]:
    """How many pictures show their thing, and nearly; the share of these and half its interval."""
    share = metrics.recall(np.array(ranks), NEAREST)
    return {
        "n": len(ranks),
        "shown": sum(rank == 0 for rank in ranks),
        "shown nearly": sum(rank < NEAREST for rank in ranks),
        "share shown nearly": [round(share.value, 4), round(share.half, 4)],
    }
