"""How small, near and sharp the SVG of pictures is.

    python -m benchmarks svg [--sheet FILE]

Pictures of the model at 64 px are traced. Each SVG is rendered by resvg at 256 px and reduced to
64, to compare it with the picture; all are opened by Chromium on one page too, whose screenshot is
compared with resvg's. Errors are root mean squares of premultiplied RGBA in [0, 1].
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asymflow.core import engine, presets
from asymflow.core.types import Picture, Request
from asymflow.generation import metadata, pipeline
from asymflow.generation.sheets import sheet
from asymflow.io import tracing
from asymflow.io.images import fit, to_bytes
from asymflow.models.embedded.prompts import everyday
from asymflow.models.embedded.styles import style_ids
from benchmarks import results

SIDE, LARGE = 64, 256
TILE, ACROSS = 128, 10
"""Side of a picture on the page of Chromium, and pictures in a row."""
SHOWN = 12
QUICK = {"count": 8}
_PROMPTS = 11  # seed of the choice of prompts
_PATH = re.compile(r'<path d="([^"]*)"')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100, metavar="N")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="pictures above their tracings")


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load()
    pictures = drawn(model, given.count)
    mark = metadata.mark(composite=False)
    files: list[bytes] = []
    seconds: list[float] = []
    for picture in pictures:
        began = time.process_time()
        files.append(tracing.svg(picture, title="", notes=mark))
        seconds.append(time.process_time() - began)
    large = [tracing.rendered(each, (LARGE, LARGE)) for each in files]
    pairs = list(zip(pictures, large, strict=True))
    errors = [_rms(fit(shown, (SIDE, SIDE)) - picture) for picture, shown in pairs]
    paths = [[_extent(path, each) for path in _PATH.findall(each.decode())] for each in files]
    smallest = [min(each) for each in paths if each]
    between = in_chromium(files)
    report = {
        "pictures": len(pictures),
        "kB": _spread([len(each) / 1000 for each in files]),
        "rmse at 64 px": _spread(errors),
        "within .05": int(sum(error <= 0.05 for error in errors)),
        "shapes": _spread([len(each) for each in paths]),
        "smallest shape in px": round(min(smallest), 2),
        "rmse of chromium to resvg": None if between is None else _spread(between),
        "seconds": _spread(seconds),
    }
    print(json.dumps(report, indent=1))
    if given.sheet is not None:
        rows = [[fit(each, (LARGE, LARGE)) for each in pictures[:SHOWN]], large[:SHOWN]]
        sheet(rows, row_labels=["picture", "SVG"], col_labels=[]).save(given.sheet)
    path = (given.out or results.folder_of(model.adapter.name)) / "svg.json"
    return results.save(path, report, **results.on(model))


def drawn(model: pipeline.Model, count: int) -> list[Picture]:
    """Pictures of everyday things in all styles, by the plan that people use."""
    size = (SIDE, SIDE)
    plan = pipeline.plans_of(model, size)[pipeline.usual_plan(model, size)]
    styles = style_ids()
    requests = [
        Request(
            {"prompt": prompt, "style": styles[seed % len(styles)]}, size, seed, presets.GUIDANCE
        )
        for seed, prompt in enumerate(everyday(count, _PROMPTS))
    ]
    return [made.picture for made in engine.run(model.adapter, plan, requests)]


def in_chromium(files: list[bytes]) -> list[float] | None:
    """The errors of a screenshot of Chromium to resvg, on white; None where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return None
    rows = -(-len(files) // ACROSS)
    images = "".join(
        f'<img width={TILE} height={TILE} src="data:image/svg+xml;base64,'
        f'{base64.b64encode(each).decode()}">'
        for each in files
    )
    style = "*{margin:0;border:0;padding:0}body{display:grid;background:#fff;"
    style += f"grid-template-columns:repeat({ACROSS},{TILE}px)}}img{{display:block}}"
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(f"<!doctype html><style>{style}</style>{images}", "utf-8")
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", f"--window-size={ACROSS * TILE},{rows * TILE}",
                f"--screenshot={shot}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as image:
            seen = np.asarray(image.convert("RGB"), np.float32) / 255
    errors: list[float] = []
    for place, each in enumerate(files):
        top, left = TILE * (place // ACROSS), TILE * (place % ACROSS)
        tile = seen[top : top + TILE, left : left + TILE]
        ours = to_bytes(tracing.rendered(each, (TILE, TILE)), (1.0, 1.0, 1.0))
        errors.append(_rms(tile - ours.astype(np.float32) / 255))
    return errors


def _extent(path: str, file: bytes) -> float:
    """The longer side of the box around a shape, in pixels of the picture."""
    found = re.search(rb'viewBox="0 0 (\d+)', file)
    assert found is not None, "every file says how large it is"
    numbers = np.array(re.findall(r"-?\d+(?:\.\d+)?", path), np.float64)
    box = max(np.ptp(numbers[::2]), np.ptp(numbers[1::2]))
    return float(box) * SIDE / int(found[1])


def _rms(difference: NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt((difference.astype(np.float64) ** 2).mean()))


def _spread(values: list[float] | list[int]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
    return {
        "median": round(float(median), 4),
        "tenth": round(float(low), 4),
        "ninth": round(float(high), 4),
        "most": round(float(max(values)), 4),
    }
