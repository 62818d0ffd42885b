"""Read drawings and their names from fetched packages."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asymflow.core.errors import FileFormatError
from asymflow.models.embedded.styles import Style
from asymflow.training.data.slugs import Slugs, has_skin_tone, key_of

_EXCLUDED = frozenset(
    (
        ("fxemoji", "heartblue"),  # drawn outside its canvas
        ("emojione", "pistol"),  # a firearm; the name now denotes a water pistol
        ("noto-v1", "pistol"),
        ("streamline-emojis", "pistol"),
        ("fxemoji", "pistol"),
        ("streamline-emojis", "right-anger-bubble"),  # a thought bubble
    )
)


@dataclass(frozen=True, slots=True)
class Concept:
    """An emoji: CLDR short name, keywords, group and subgroup."""

    key: str
    name: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture before rasterisation: an SVG document or the bytes of a bitmap file."""

    concept: Concept
    style: Style
    slug: str
    source: str | bytes


def read_concepts(names: Path, keywords: Path) -> dict[str, Concept]:
    """All emoji by key, including skin-tone variants.

    Args:
        names: the emojibase-data package.
        keywords: the emojilib package.
    """
    members = _members(names, ("package/en/data.json", "package/meta/groups.json"))
    families = members["package/meta/groups.json"]
    groups: dict[str, str] = families["groups"]
    subgroups: dict[str, str] = families["subgroups"]
    more_member = "package/dist/emoji-en-US.json"
    more = {
        "-".join(f"{ord(char):04x}" for char in emoji if char != "\ufe0f"): words[1:]
        for emoji, words in _members(keywords, (more_member,))[more_member].items()
    }
    concepts: dict[str, Concept] = {}
    for row in members["package/en/data.json"]:
        for record in (row, *row.get("skins", ())):
            key = key_of(record["hexcode"])
            words = [*row.get("tags", ()), *more.get(key_of(row["hexcode"]), ())]
            concepts[key] = Concept(
                key=key,
                name=record["label"],
                keywords=tuple(dict.fromkeys(word.replace("_", " ") for word in words)),
                group=groups.get(str(row.get("group")), ""),
                subgroup=subgroups.get(str(row.get("subgroup")), ""),
            )
    return concepts


def read_drawings(
    packages: Mapping[str, Path],
    styles: Sequence[Style],
    concepts: Mapping[str, Concept],
    *,
    skin_tones: bool,
) -> list[Drawing]:
    """All drawings of `styles`, ordered by style and key.

    Drawings that match no emoji are omitted, because they have no name.

    Args:
        packages: style id to package file.
        styles: the styles to read.
        concepts: from `read_concepts`.
        skin_tones: include skin-tone variants.
    """
    icons = {style.id: _icon_set(packages[style.id]) for style in styles}
    slugs = _slugs(icons.values(), concepts)
    drawings: list[Drawing] = []
    for style in styles:
        icon_set = icons[style.id]
        found = _bitmaps(packages[style.id]) if icon_set is None else _documents(icon_set, slugs)
        chosen = [
            Drawing(concepts[key], style, slug, source)
            for key, slug, source in found
            if key in concepts and (skin_tones or not has_skin_tone(key))
        ]
        drawings += sorted(chosen, key=lambda drawing: (drawing.concept.key, drawing.slug))
    return drawings


@dataclass(frozen=True, slots=True)
class _IconSet:
    icons: dict[str, Any]  # icons.json, in the Iconify format
    chars: dict[str, str]  # code points to slug


def _icon_set(package: Path) -> _IconSet | None:
    """The Iconify files of a package, or None if it holds bitmaps instead."""
    with tarfile.open(package) as tar:
        if "package/icons.json" not in tar.getnames():
            return None
    members = _members(package, ("package/icons.json", "package/chars.json"))
    chars: dict[str, str] = members["package/chars.json"] or {}
    return _IconSet(members["package/icons.json"], chars)


def _slugs(icon_sets: Any, concepts: Mapping[str, Concept]) -> Slugs:
    known: dict[str, str] = {}
    same: list[tuple[str, str]] = []
    for icon_set in icon_sets:
        if icon_set is not None:
            for codes, slug in icon_set.chars.items():
                known.setdefault(slug, key_of(codes))
            for slug, alias in icon_set.icons.get("aliases", {}).items():
                if len(alias) == 1:  # with more fields the alias is a mirrored drawing
                    same.append((slug, alias["parent"]))
    return Slugs({key: concept.name for key, concept in concepts.items()}, known, same)


def _documents(icon_set: _IconSet, slugs: Slugs) -> Iterator[tuple[str, str, str]]:
    """(key, slug, SVG document) of every visible icon of an Iconify set."""
    data = icon_set.icons
    keys = {slug: key_of(codes) for codes, slug in icon_set.chars.items()}
    for slug, icon in data["icons"].items():
        key = keys.get(slug) or slugs.find(slug, data["prefix"])
        if icon.get("hidden") or key is None or (data["prefix"], slug) in _EXCLUDED:
            continue
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", data.get("width", 16))
        height = icon.get("height", data.get("height", 16))
        side = max(width, height)
        box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
        yield (
            key,
            slug,
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{side:g}" height="{side:g}">{icon["body"]}</svg>',
        )


def _bitmaps(package: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, slug, file) of every bitmap, which are named by code points."""
    with tarfile.open(package) as tar:
        for member in tar:
            path = Path(member.name)
            file = tar.extractfile(member) if path.suffix == ".webp" else None
            if file is not None:
                yield key_of(path.stem), path.stem, file.read()


def _members(package: Path, names: Sequence[str]) -> dict[str, Any]:
    """Parsed JSON members of a package; only `chars.json` is optional.

    Raises:
        FileFormatError: another member is missing.
    """
    found: dict[str, Any] = {}
    with tarfile.open(package) as tar:
        present = set(tar.getnames())
        for name in names:
            file = tar.extractfile(name) if name in present else None
            if file is not None:
                found[name] = json.load(file)
            elif name == "package/chars.json":
                found[name] = None
            else:
                raise FileFormatError(
                    f"{package} has no member {name}: the package changed its layout. "
                    "Use the versions pinned in asymflow.models.embedded.styles."
                )
    return found


def table(concepts: Mapping[str, Concept]) -> dict[str, str]:
    """The contents of `emoji_names.json`, from `read_concepts`."""
    return {
        "".join(chr(int(code, 16)) for code in concept.key.split("-")): concept.name
        for concept in concepts.values()
        if concept.group and not has_skin_tone(concept.key) and concept.group != "component"
    }
