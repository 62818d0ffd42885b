"""A tiny world of emoji packages, drawn here, in the layouts of the real ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from asymflow.models.embedded.styles import KEYWORDS, NAMES, STYLES, Package
from asymflow.training.data import builder
from asymflow.training.data.builder import BuildReport
from asymflow.training.data.dataset import Dataset

# hexcode, CLDR name, group, subgroup, tags. By the held-out rule sunflower is held out in
# fluent-3d, tiger in fluent-flat and frog in noto.
CONCEPTS = (
    ("1F98A", "fox", 3, 34, ["animal", "face"]),
    ("1F405", "tiger", 3, 34, ["zoo"]),
    ("1F438", "frog", 3, 36, ["toad"]),
    ("1F33B", "sunflower", 3, 40, ["plant"]),
    ("1F34E", "red apple", 4, 42, ["fruit"]),
    ("1F3E0", "house", 5, 51, ["home"]),
    ("1F45E", "man’s shoe", 7, 65, ["shoe"]),
    ("2764-FE0F", "red heart", 0, 14, ["love"]),
    ("1F1EB-1F1F7", "flag: France", 9, 98, ["FR"]),
    ("1F44B", "waving hand", 1, 16, ["hello"]),
)
SKIN = ("1F44B-1F3FB", "waving hand: light skin tone")
GROUPS = ("smileys-emotion people-body component animals-nature food-drink travel-places "
          "activities objects symbols flags").split()  # fmt: skip
SUBGROUPS = {
    34: "animal-mammal", 36: "animal-amphibian", 40: "plant-flower", 42: "food-fruit",
    51: "place-building", 65: "clothing", 14: "heart", 98: "country-flag", 16: "hand-fingers-open",
}  # fmt: skip
VECTOR_STYLES = ("fluent-flat", "noto", "noto-v1", "twemoji", "emojione")
BITMAP_STYLE = "fluent-3d"
STYLE_IDS = (BITMAP_STYLE, *VECTOR_STYLES)

Packages = dict[str, dict[str, bytes]]  # package name to member name to content


@pytest.fixture(scope="session")
def packages() -> Packages:
    """Members of every fake package, by package name."""
    members: Packages = {
        NAMES.name: {
            "package/en/data.json": _json(_names()),
            "package/meta/groups.json": _json(
                {"groups": dict(enumerate(GROUPS)), "subgroups": SUBGROUPS}
            ),
        },
        KEYWORDS.name: {
            "package/dist/emoji-en-US.json": _json({"🦊": ["fox", "animal", "red_fox"]})
        },
    }
    for style in STYLES:
        if style.id == BITMAP_STYLE:
            members[style.package.name] = {
                f"package/assets/{code.lower()}.webp": _bitmap(number)
                for number, (code, *_) in enumerate(CONCEPTS)
            }
        elif style.id in VECTOR_STYLES:
            members[style.package.name] = _icon_set(style.id)
    return members


@pytest.fixture(scope="session")
def write_package() -> Callable[[Path, Mapping[str, bytes]], Path]:
    """Write members into a ``.tgz``."""

    def write(path: Path, members: Mapping[str, bytes]) -> Path:
        with tarfile.open(path, "w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def fake_fetch(
    tmp_path: Path,
    packages: Packages,
    write_package: Callable[[Path, Mapping[str, bytes]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Packages:
    """Make builds read the fake packages; change the returned members to change them."""
    own: Packages = {name: dict(members) for name, members in packages.items()}

    def fetch(package: Package, cache: Path) -> Path:
        name = package.name.replace("/", "-")
        return write_package(tmp_path / f"{name}.tgz", own[package.name])

    monkeypatch.setattr(builder, "fetch", fetch)
    return own


@pytest.fixture(scope="session")
def built(
    tmp_path_factory: pytest.TempPathFactory,
    packages: Packages,
    write_package: Callable[[Path, Mapping[str, bytes]], Path],
) -> BuildReport:
    """One build of all fake packages."""
    folder = tmp_path_factory.mktemp("fetched")

    def fetch(package: Package, cache: Path) -> Path:
        name = package.name.replace("/", "-")
        return write_package(folder / f"{name}.tgz", packages[package.name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "fetch", fetch)
        out = tmp_path_factory.mktemp("built")
        return builder.build(out, styles=STYLE_IDS, workers=1, progress=False)


@pytest.fixture(scope="session")
def dataset(built: BuildReport) -> Dataset:
    """The training split of that build."""
    return Dataset(built.out)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _names() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for code, label, group, subgroup, tags in CONCEPTS:
        row: dict[str, Any] = {
            "hexcode": code,
            "label": label,
            "group": group,
            "subgroup": subgroup,
            "tags": tags,
        }
        if code == "1F44B":
            row["skins"] = [{"hexcode": SKIN[0], "label": SKIN[1], "group": 1, "subgroup": 16}]
        rows.append(row)
    return rows


def _colour(number: int) -> tuple[int, int, int]:
    return 40 + 20 * number, 220 - 20 * number, 30 * (number % 5)


def _bitmap(number: int) -> bytes:
    height = 264 if number == 0 else 256  # a few of the real files are this tall
    image = Image.new("RGBA", (256, height), (255, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((40, 60, 215, 195), fill=(*_colour(number), 255))
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def _icon_set(style: str) -> dict[str, bytes]:
    """An Iconify package; noto-v1 has no code points, and an older name for the fox."""
    icons: dict[str, Any] = {}
    chars: dict[str, str] = {}
    for number, (code, label, *_) in enumerate(CONCEPTS):
        slug = label.lower().replace("’", "").replace(": ", "-").replace(" ", "-")
        if style == "noto-v1" and slug == "fox":
            slug = "fox-face"
        red, green, blue = _colour(number)
        shape = f'cx="32" cy="32" rx="24" ry="{10 + 2 * VECTOR_STYLES.index(style)}"'
        body = f'<ellipse {shape} fill="rgb({red},{green},{blue})"/>'
        icons[slug] = {"body": body}
        chars[code.lower().replace("-fe0f", "")] = slug
    icons["waving-hand-light-skin-tone"] = {"body": '<rect width="9" height="9"/>'}
    chars[SKIN[0].lower()] = "waving-hand-light-skin-tone"
    icons["fox-2"] = {"body": '<rect width="9" height="9"/>', "hidden": True}
    icons["tiger-mirrored"] = {"body": '<rect width="9" height="9"/>'}
    icons["nobody-knows-this"] = {"body": '<rect width="9" height="9"/>'}
    data = {"prefix": style, "icons": icons, "width": 64, "height": 64, "aliases": {}}
    if style == "noto":
        data["aliases"] = {
            "fox-face": {"parent": "fox"},
            "tiger-mirrored": {"parent": "tiger", "hFlip": True},
        }
    members = {"package/icons.json": _json(data)}
    if style != "noto-v1":
        members["package/chars.json"] = _json(chars)
    return members
