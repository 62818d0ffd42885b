"""The pixel-space models of ComfyUI, by the name that its configuration has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Models that share a way of sampling.

    Attributes:
        name: what plans are bound to.
        title: for people.
        steps: of ComfyUI's template, where there is one, or as its authors sample it; a plan is
            compared with as many of Euler's method.
        distilled: made for a few fixed steps, which leave nothing to plan.
    """

    name: str
    title: str
    steps: int = 30
    distilled: bool = False


FAMILIES: Mapping[str, Family] = {
    "chroma_radiance": Family("chroma-radiance", "Chroma1-Radiance"),
    "zimage_pixel": Family("zeta-chroma", "Zeta-Chroma"),
    "pixeldit_t2i": Family("pixeldit", "PixelDiT"),
    "pid": Family("pid", "PiD", steps=4, distilled=True),
    "hidream_o1": Family("hidream-o1", "HiDream-O1-Image", steps=40),
    "sensenova_u15": Family("sensenova-u1.5", "SenseNova-U1.5", steps=50),
}


def family_of(image_model: str) -> Family:
    """The family of a configuration; one of its own for what is not known here."""
    return FAMILIES.get(image_model) or Family(image_model.replace("_", "-"), image_model)
