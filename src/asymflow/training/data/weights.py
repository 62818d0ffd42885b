"""Sampling weights of pictures, and whether they may be mirrored."""

from __future__ import annotations

import re

from asymflow.models.embedded.library import COMMON
from asymflow.training.data.slugs import has_skin_tone

SOME = 0.3  # variants of a person, shapes
RARE = 0.05  # signs, letters, flags, clocks: large groups that are rarely requested

_SIGNS = frozenset(
    "arrow av-symbol gender math punctuation currency other-symbol keycap alphanum "
    "transport-sign country-flag subdivision-flag person-symbol hair-style skin-tone".split()
)
_LESS = frozenset("religion zodiac geometric warning family flag".split())
_COMMON_SIGNS = frozenset(
    "check mark button|cross mark|check mark|recycling symbol|warning|radioactive|biohazard|"
    "no entry|prohibited|sparkle|question mark|exclamation mark|red question mark|"
    "red exclamation mark|peace symbol|infinity|plus|hollow red circle|trident emblem|"
    "yin yang|atom symbol|chequered flag|pirate flag|rainbow flag|triangular flag".split("|")
)
_MOON_FACES = frozenset(("new moon face", "first quarter moon face", "last quarter moon face"))
_MOON_PHASE = re.compile(r"(waxing|waning|quarter) .*moon|^new moon$")
_GENDERED = re.compile(r"^(man|woman|men|women)\b.* .*|^(man|woman): ")
_TEXT = re.compile(
    r"\b(left|right|tilted|clock|watch|oclock|calendar|newspaper|book|notebook|ledger|scroll|"
    r"banknote|credit card|receipt|label|ticket|tickets|abacus|ambulance|police|taxi|bus|atm|"
    r"musical|mahjong|joker|card|playing|keyboard|slot machine|map|globe|thermometer|"
    r"hundred points|stop sign|barber|pager|speedometer|timer|die|jigsaw|billiards|pool 8|"
    r"tear-off|id|pencil|letter|bank|hotel|hospital|post|store|school|chart|zzz|question|"
    r"exclamation|check|curly|medal|trophy|soap|bookmark|page|memo|clipboard|japan|"
    r"name badge|symbols on mouth|email|e-mail|writing)\b"
)


def weight(key: str, name: str, group: str, subgroup: str) -> float:
    """Relative sampling rate: 1 for a common concept, less for large groups of variants."""
    if has_skin_tone(key) or group in ("component", "flags"):
        return SOME if name in _COMMON_SIGNS else RARE
    if name in _COMMON_SIGNS:
        return SOME
    if subgroup in _SIGNS or group == "":
        return RARE
    if subgroup == "time" and re.search(r"o.clock|-thirty", name):
        return RARE
    if name in _MOON_FACES or _MOON_PHASE.search(name):
        return SOME
    if subgroup in _LESS or group == "symbols":
        return SOME
    if group == "people-body" and ("200d" in key.split("-") or _GENDERED.search(name)):
        return SOME
    return COMMON


def flip_ok(name: str, group: str) -> bool:
    """Whether the mirror image shows the same thing: no text, no handedness."""
    return group not in ("flags", "symbols", "component", "") and not _TEXT.search(name)
