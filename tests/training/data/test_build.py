"""The build, end to end, on fake packages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asymflow.core.errors import FileFormatError, InputError
from asymflow.io.files import replacing
from asymflow.models.embedded.styles import STYLES
from asymflow.training.data import builder
from asymflow.training.data.builder import BuildReport, build, describe
from asymflow.training.data.catalogue import Concept, Drawing
from asymflow.training.data.holdout import position
from asymflow.training.data.manifest import read_manifest

STYLE_IDS = ("fluent-3d", "fluent-flat", "noto", "noto-v1", "twemoji", "emojione")
NOTO = "@iconify-json/noto"


def test_every_style_has_every_concept(built: BuildReport) -> None:
    entries = read_manifest(built.out / "manifest.jsonl")
    assert built.per_style == dict.fromkeys(STYLE_IDS, 10)
    keys = {entry.key for entry in entries if entry.style == "fluent-3d"}
    for style in STYLE_IDS:
        assert {entry.key for entry in entries if entry.style == style} == keys
    assert "2764" in keys  # FE0F is no part of a key
    assert not any("1f3fb" in key for key in keys)  # no skin tones unless asked for


def test_older_names_are_matched(built: BuildReport) -> None:
    entries = read_manifest(built.out / "manifest.jsonl")
    old = [entry for entry in entries if entry.slug == "fox-face"]
    assert [(entry.key, entry.name, entry.style) for entry in old] == [("1f98a", "fox", "noto-v1")]


def test_manifest_describes_each_picture(built: BuildReport) -> None:
    entries = read_manifest(built.out / "manifest.jsonl")
    fox = next(entry for entry in entries if entry.key == "1f98a" and entry.style == "twemoji")
    assert fox.keywords == ("animal", "face", "red fox")
    assert (fox.group, fox.subgroup) == ("animals-nature", "animal-mammal")
    assert (fox.weight, fox.flip_ok, fox.licence) == (1.0, True, "CC-BY-4.0")
    flag = next(entry for entry in entries if entry.name == "flag: France")
    assert flag.weight < 0.1
    assert not flag.flip_ok


def test_held_out_pairs_follow_the_rule(built: BuildReport) -> None:
    entries = read_manifest(built.out / "manifest.jsonl")
    held = {(entry.key, entry.style) for entry in entries if entry.split == "heldout"}
    assert held >= {("1f33b", "fluent-3d"), ("1f405", "fluent-flat"), ("1f438", "noto")}
    assert len(held) == built.held_out
    assert all(position(*pair) < 0.05 for pair in held)


def test_only_common_concepts_are_held_out() -> None:
    drawings = [
        Drawing(Concept(f"{key:x}", "thing", (), group, subgroup), style, "", "")
        for key in range(300)
        for style in STYLES
        for group, subgroup in [("objects", "tool") if key % 2 else ("flags", "country-flag")]
    ]
    held = [entry for entry in describe(drawings) if entry.split == "heldout"]
    assert len(held) > 30
    assert {entry.group for entry in held} == {"objects"}


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of the ne")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_arrays_hold_the_drawings(built: BuildReport) -> None:
    big = np.load(built.out / "images-128.npy")
    assert big.shape == (60, 128, 128, 4)
    assert big.dtype == np.uint8
    assert (big[..., :3] <= big[..., 3:]).all()  # premultiplied
    entries = read_manifest(built.out / "manifest.jsonl")
    for entry in entries:
        assert big[entry.index, 64, 64, 3] == 255
        assert big[entry.index, 2, 2, 3] == 0
    noto = next(e for e in entries if e.style == "noto" and e.name == "fox")
    assert big[noto.index, 64, 64].tolist() == [40, 220, 0, 255]


def test_smaller_arrays_are_exact_means(built: BuildReport) -> None:
    big = np.load(built.out / "images-128.npy").astype(np.int64)
    for size in (64, 32):
        factor = 128 // size
        blocks = big.reshape(60, size, factor, size, factor, 4)
        exact = np.floor(blocks.mean(axis=(2, 4)) + 0.5)
        assert np.array_equal(np.load(built.out / f"images-{size}.npy"), exact)


def test_build_json_records_versions_and_hashes(built: BuildReport) -> None:
    record = json.loads((built.out / "build.json").read_text())
    assert record["count"] == 60
    assert record["pixel_sha256"] == built.hashes
    versions = {style["id"]: style["package"]["version"] for style in record["styles"]}
    assert versions["noto"] == "1.2.9"
    assert "sha256" in record["held_out_rule"]


def test_no_temporary_files_are_left(built: BuildReport) -> None:
    assert sorted(path.name for path in built.out.iterdir()) == [
        "build.json", "images-128.npy", "images-32.npy", "images-64.npy", "manifest.jsonl",
    ]  # fmt: skip


def test_same_packages_give_the_same_bytes(
    built: BuildReport, fake_fetch: object, tmp_path: Path
) -> None:
    again = build(tmp_path / "out", styles=STYLE_IDS, workers=2, progress=False)
    assert again.hashes == built.hashes
    for name in ("manifest.jsonl", "images-64.npy"):
        assert (again.out / name).read_bytes() == (built.out / name).read_bytes()


def test_interrupted_build_goes_on_where_it_stopped(
    fake_fetch: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "SHARD", 4)
    out = tmp_path / "out"
    good = fake_fetch[NOTO]["package/icons.json"]
    data = json.loads(good)
    data["icons"]["red-heart"]["body"] = "<unclosed"
    fake_fetch[NOTO]["package/icons.json"] = json.dumps(data).encode()
    with pytest.raises(FileFormatError, match="cannot draw"):
        build(out, styles=("fluent-3d", "noto"), workers=1, progress=False)
    assert not (out / "images-128.npy").exists()  # no half-made array under a final name

    (folder,) = out.glob(".shards-*")
    first = folder / "000000.npy"
    marked = np.load(first)
    marked[0, 0, 0] = (7, 7, 7, 7)
    np.save(first, marked)
    fake_fetch[NOTO]["package/icons.json"] = good
    report = build(out, styles=("fluent-3d", "noto"), workers=1, progress=False)
    assert report.count == 20
    images = np.load(out / "images-128.npy")
    assert images[0, 0, 0].tolist() == [7, 7, 7, 7]  # kept, not drawn again
    assert images[19, 64, 64, 3] == 255  # and the rest was drawn
    assert not list(out.glob(".shards-*"))


def test_finished_build_is_not_drawn_again(
    fake_fetch: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = build(out, styles=("twemoji",), workers=1, progress=False)
    before = (out / "images-128.npy").stat().st_mtime_ns
    second = build(out, styles=("twemoji",), workers=1, progress=False)
    assert replace(second, seconds=0) == replace(first, seconds=0)
    assert (out / "images-128.npy").stat().st_mtime_ns == before
    build(out, styles=("noto",), workers=1, progress=False)  # other drawings: drawn anew
    assert (out / "images-128.npy").stat().st_mtime_ns != before


def test_skin_tones_on_request(fake_fetch: object, tmp_path: Path) -> None:
    report = build(tmp_path, styles=("noto",), workers=1, skin_tones=True, progress=False)
    entries = read_manifest(tmp_path / "manifest.jsonl")
    toned = [entry for entry in entries if entry.key == "1f44b-1f3fb"]
    assert report.count == 11
    assert [entry.weight < 0.1 for entry in toned] == [True]


@pytest.mark.parametrize("styles", [("openmoji",), ()])
def test_unknown_styles_are_named(styles: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fluent-3d"):
        build(tmp_path, styles=styles, progress=False)


def test_no_workers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers is 0"):
        build(tmp_path, workers=0, progress=False)


def test_broken_manifest_is_reported_with_its_line(built: BuildReport, tmp_path: Path) -> None:
    lines = (built.out / "manifest.jsonl").read_text().splitlines()
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join([lines[0], "{}", *lines[2:]]))
    with pytest.raises(FileFormatError, match="line 2"):
        read_manifest(path)
    path.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(FileFormatError, match="index 2, expected 1"):
        read_manifest(path)
    with pytest.raises(FileFormatError, match="asymflow data build"):
        read_manifest(tmp_path / "absent.jsonl")
