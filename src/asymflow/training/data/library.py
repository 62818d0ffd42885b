"""Build the library of reference drawings that is shipped with the model.

It is a zip file::

concepts.json            names, keywords and styles of every concept; licences of the styles
noto/1f98a.webp          a drawing, 64 x 64 px, lossless, straight alpha
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from asymflow.io.files import replacing
from asymflow.models.embedded.library import FORMAT, SIDE, Concept, member
from asymflow.models.embedded.styles import LIBRARY, STYLES
from asymflow.models.embedded.words import nouns
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry

_EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed, for reproducible files


def build(dataset: Dataset, path: Path) -> int:
    """Write the drawings of a dataset that are in a style of the library, and return their number.

    Only the first drawing of a concept in a style is included.
    """
    drawings: dict[str, dict[str, Entry]] = {}
    for entry in dataset.entries:
        if entry.style in LIBRARY:
            drawings.setdefault(entry.key, {}).setdefault(entry.style, entry)
    concepts: list[Concept] = []
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, styles in sorted(drawings.items()):
            for style, entry in styles.items():
                data = _webp(dataset, entry)
                archive.writestr(zipfile.ZipInfo(member(style, key), _EPOCH), data)
            first = next(styles[style] for style in LIBRARY if style in styles)
            concepts.append(
                Concept(
                    key=key,
                    names=tuple(noun.bare for noun in nouns(first.name)),
                    keywords=first.keywords,
                    weight=first.weight,
                    styles=tuple(style for style in LIBRARY if style in styles),
                )
            )
        index = {
            "format": FORMAT,
            "licences": {
                style.id: {"licence": style.licence, "notice": style.notice}
                for style in STYLES
                if style.id in LIBRARY
            },
            "concepts": [asdict(concept) for concept in concepts],
        }
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        info = zipfile.ZipInfo("concepts.json", _EPOCH)
        archive.writestr(info, text, zipfile.ZIP_DEFLATED)
    return sum(map(len, drawings.values()))


def _webp(dataset: Dataset, entry: Entry) -> bytes:
    # "RGBa" is Pillow's premultiplied mode.
    pixels = dataset.image(entry.index, SIDE)
    picture = Image.frombytes("RGBa", (SIDE, SIDE), pixels.tobytes()).convert("RGBA")
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, method=4)
    return file.getvalue()
