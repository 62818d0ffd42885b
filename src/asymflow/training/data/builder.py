"""Build the dataset: fetch packages, rasterise, downsample, and write the manifest.

Pictures are rasterised in shards, each written atomically, so that an interrupted build can be
resumed. The output folder contains::

    images-128.npy  images-64.npy  images-32.npy   uint8 [N, size, size, 4], premultiplied
    manifest.jsonl                                 one Entry per picture
    build.json                                     versions, counts, hashes
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.core.errors import InputError
from asymflow.io import folders
from asymflow.io.files import replacing, write_text
from asymflow.io.progress import bars
from asymflow.models.embedded.bitmaps import Pixels, pool, render_bitmap
from asymflow.models.embedded.library import COMMON
from asymflow.models.embedded.styles import KEYWORDS, NAMES, STYLES, Package, Style, style_ids
from asymflow.training.data.catalogue import Drawing, read_concepts, read_drawings
from asymflow.training.data.fetch import fetch
from asymflow.training.data.holdout import RULE, held_out
from asymflow.training.data.manifest import Entry, write_manifest
from asymflow.training.data.render import render_svg, require_renderer
from asymflow.training.data.weights import flip_ok, weight

SIZES = (128, 64, 32)
SHARD = 256
FORMAT = 1  # increment when the pixels of the same packages change
ALL = style_ids()

Advance = Callable[[int], None]
Bar = Callable[[str, int], AbstractContextManager[Advance]]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Summary of a build.

    Attributes:
        hashes: SHA-256 of each array file.
        seconds: wall time.
    """

    out: Path
    count: int
    per_style: dict[str, int]
    held_out: int
    hashes: dict[str, str]
    seconds: float

    def __str__(self) -> str:
        rows = [f"{style:<12} {count:>6}" for style, count in self.per_style.items()]
        rows.append(f"{'all':<12} {self.count:>6}   {self.held_out} held out")
        return "\n".join([*rows, f"{self.out}, {self.seconds:.0f} s"])


def build(
    out: Path,
    *,
    cache: Path | None = None,
    styles: Sequence[str] = ALL,
    workers: int | None = None,
    skin_tones: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Build the dataset in `out`.

    Resumes an interrupted build of the same drawings, and reuses the arrays of a complete one.

    Args:
        out: output folder; created if absent.
        cache: cache folder of packages; by default the user's cache folder.
        styles: style ids, see `asymflow.models.embedded.styles.STYLES`.
        workers: number of rasterising processes; by default one per core, at most 8.
        skin_tones: include skin-tone variants, which nearly doubles the dataset.
        progress: show a progress bar if standard error is a terminal.

    Raises:
        InputError: an unknown style, or fewer than one worker.
        DownloadError: a package cannot be fetched or verified.
        MissingExtra: resvg_py is not installed.
    """
    started = time.monotonic()
    require_renderer()
    chosen = _chosen(styles)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, but drawing needs at least 1. Pass 1 or more.")
    workers = workers or min(os.cpu_count() or 1, 8)
    bar = partial(_bar, visible=progress)
    packages = _fetch_all([NAMES, KEYWORDS, *(s.package for s in chosen)], cache, bar)
    concepts = read_concepts(packages[NAMES.name], packages[KEYWORDS.name])
    drawings = read_drawings(
        {style.id: packages[style.package.name] for style in chosen},
        chosen,
        concepts,
        skin_tones=skin_tones,
    )
    entries = describe(drawings)
    fingerprint = _fingerprint(drawings)
    hashes = _finished(out, fingerprint)
    if hashes is None:
        shards = out / f".shards-{fingerprint}"
        shards.mkdir(parents=True, exist_ok=True)
        _rasterise(drawings, shards, workers, bar)
        hashes = _assemble(shards, out, len(drawings), bar)
        shutil.rmtree(shards)
    write_manifest(out / "manifest.jsonl", entries)
    report = BuildReport(
        out=out,
        count=len(entries),
        per_style=dict(Counter(entry.style for entry in entries)),
        held_out=sum(entry.split == "heldout" for entry in entries),
        hashes=hashes,
        seconds=time.monotonic() - started,
    )
    record = {"fingerprint": fingerprint, **_record(report, chosen)}
    write_text(out / "build.json", json.dumps(record, indent=2) + "\n")
    return report


def describe(drawings: Sequence[Drawing]) -> list[Entry]:
    """Manifest entries of drawings, in the same order."""
    weights = [
        weight(c.key, c.name, c.group, c.subgroup)
        for c in (drawing.concept for drawing in drawings)
    ]
    heldout = held_out(
        (drawing.concept.key, drawing.style.id)
        for drawing, share in zip(drawings, weights, strict=True)
        if share == COMMON
    )
    return [
        Entry(
            index=index,
            key=drawing.concept.key,
            slug=drawing.slug,
            style=drawing.style.id,
            name=drawing.concept.name,
            keywords=drawing.concept.keywords,
            group=drawing.concept.group,
            subgroup=drawing.concept.subgroup,
            weight=share,
            split="heldout" if (drawing.concept.key, drawing.style.id) in heldout else "train",
            flip_ok=flip_ok(drawing.concept.name, drawing.concept.group),
            licence=drawing.style.licence,
            package=drawing.style.package.name,
            version=drawing.style.package.version,
        )
        for index, (drawing, share) in enumerate(zip(drawings, weights, strict=True))
    ]


def draw_shard(sources: Sequence[str | bytes], path: Path) -> None:
    """Rasterise drawings and write them as one array, atomically."""
    size = SIZES[0]
    images = np.stack(
        [
            render_svg(source, size) if isinstance(source, str) else render_bitmap(source, size)
            for source in sources
        ]
    )
    with replacing(path) as file:
        np.save(file, images)


def _chosen(styles: Sequence[str]) -> list[Style]:
    unknown = sorted(set(styles) - set(ALL))
    if unknown or not styles:
        raise InputError(
            f"unknown styles {unknown} in {list(styles)}. Choose one or more of: {', '.join(ALL)}."
        )
    return [style for style in STYLES if style.id in styles]


def _fetch_all(packages: Sequence[Package], cache: Path | None, bar: Bar) -> dict[str, Path]:
    folder = cache or folders.cache()
    with bar("fetching packages", len(packages)) as advance:
        found: dict[str, Path] = {}
        for package in packages:
            found[package.name] = fetch(package, folder)
            advance(1)
    return found


def _fingerprint(drawings: Sequence[Drawing]) -> str:
    """Identifies the pixels of a build, so that only its own shards are reused."""
    digest = hashlib.sha256(f"{FORMAT}|{SIZES[0]}|{SHARD}".encode())
    for drawing in drawings:
        package = drawing.style.package
        digest.update(f"|{package.integrity}|{drawing.concept.key}|{drawing.slug}".encode())
    return digest.hexdigest()[:16]


def _finished(out: Path, fingerprint: str) -> dict[str, str] | None:
    """Array hashes of a complete build with the same pixels, or None."""
    if not all((out / f"images-{size}.npy").is_file() for size in SIZES):
        return None
    try:
        record: dict[str, Any] = json.loads((out / "build.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record["pixel_sha256"] if record.get("fingerprint") == fingerprint else None


def _rasterise(drawings: Sequence[Drawing], shards: Path, workers: int, bar: Bar) -> None:
    missing = [
        (start, shards / f"{start:06d}.npy")
        for start in range(0, len(drawings), SHARD)
        if not (shards / f"{start:06d}.npy").is_file()
    ]
    with bar("drawing", len(drawings)) as advance, ProcessPoolExecutor(workers) as executor:
        advance(len(drawings) - sum(min(SHARD, len(drawings) - start) for start, _ in missing))
        futures = {
            executor.submit(
                draw_shard, [d.source for d in drawings[start : start + SHARD]], path
            ): (min(SHARD, len(drawings) - start))
            for start, path in missing
        }
        try:
            for future in as_completed(futures):
                future.result()
                advance(futures[future])
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _assemble(shards: Path, out: Path, count: int, bar: Bar) -> dict[str, str]:
    """Concatenate shards to one array file per size; returns the SHA-256 of each file."""
    hashes: dict[str, str] = {}
    with bar("joining", count * len(SIZES)) as advance:
        for size in SIZES:
            path = out / f"images-{size}.npy"
            digest = hashlib.sha256()
            with replacing(path) as file:
                header: dict[str, Any] = {
                    "descr": "|u1",
                    "fortran_order": False,
                    "shape": (count, size, size, 4),
                }
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, count, SHARD):
                    shard: Pixels = np.load(shards / f"{start:06d}.npy")
                    data = pool(shard, SIZES[0] // size).tobytes()
                    digest.update(data)
                    file.write(data)
                    advance(len(shard))
            hashes[path.name] = digest.hexdigest()
    return hashes


def _record(report: BuildReport, styles: Sequence[Style]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "count": report.count,
        "per_style": report.per_style,
        "held_out": report.held_out,
        "held_out_rule": RULE,
        "sizes": list(SIZES),
        "pixel_sha256": report.hashes,
        "names": asdict(NAMES),
        "keywords": asdict(KEYWORDS),
        "styles": [asdict(style) for style in styles],
    }


@contextmanager
def _bar(label: str, total: int, *, visible: bool) -> Generator[Advance]:
    with bars(transient=True, visible=visible) as shown:
        yield partial(shown.advance, shown.add_task(label, total=total))
