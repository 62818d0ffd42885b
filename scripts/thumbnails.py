"""Draw the pictures on the studio's style cards with the embedded model.

The same prompt, seed and plan in every style, so that only the style differs. Run it again when
the weights change; the same weights make the same files on one machine.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import asymflow
from asymflow.core import presets
from asymflow.io import images
from asymflow.io.files import replacing
from asymflow.models.embedded import plans
from asymflow.models.embedded.styles import STYLES

PROMPT = "a fox"
SEED = 1
PLAN = "best"
SIZE = (64, 64)
SIDE = 128
"""A card is about 64 CSS pixels wide, on screens with two pixels for each."""

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "web/public/styles", ROOT / "src/asymflow/server/static/styles")
"""The source, and where its build would copy it."""


def main() -> None:
    """Write one WebP file for every style."""
    model = asymflow.load()
    requests = [
        asymflow.Request(
            {"prompt": PROMPT, "style": style.id},
            size=SIZE,
            seed=SEED,
            guidance_scale=presets.GUIDANCE,
        )
        for style in STYLES
    ]
    results = asymflow.run(model, plans.load(PLAN, SIZE), requests)
    for style, result in zip(STYLES, results, strict=True):
        image = Image.fromarray(images.to_bytes(result.picture))
        large = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        for folder in FOLDERS:
            path = folder / f"{style.id}.webp"
            with replacing(path) as file:
                large.save(file, format="webp", quality=90, method=6)
            print(path.relative_to(ROOT), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
