"""Pack a dataset into one file, for machines without the build tools.

The file holds the pictures at 128 px as lossless WebP, a twentieth of the size of the arrays;
unpacking reproduces all arrays byte for byte.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from asymflow.core.errors import FileFormatError
from asymflow.io.files import replacing
from asymflow.models.embedded.bitmaps import Pixels, pool
from asymflow.training.data.dataset import SIZES, Dataset
from asymflow.training.data.manifest import read_manifest

_LARGEST = max(SIZES)
_METADATA = ("manifest.jsonl", "build.json")


def pack(root: Path, path: Path) -> None:
    """Write the dataset in the folder `root` into one file.

    Raises:
        FileFormatError: the build in the folder is incomplete.
    """
    dataset = Dataset(root)

    def encoded(index: int) -> bytes:
        return _encode(dataset.image(index, _LARGEST))

    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ThreadPoolExecutor() as pool_of_threads,
    ):
        for name in _METADATA:
            archive.write(root / name, name, zipfile.ZIP_DEFLATED)
        indices = range(len(dataset.entries))
        for index, data in enumerate(pool_of_threads.map(encoded, indices)):
            archive.writestr(_member(index), data)


def unpack(path: Path, root: Path) -> None:
    """Unpack a file of `pack` into the folder `root`, like a build.

    Raises:
        FileFormatError: the file is damaged or not a packed dataset.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in _METADATA:
                with archive.open(name) as source, replacing(root / name) as target:
                    shutil.copyfileobj(source, target)
            data = [
                archive.read(_member(i)) for i in range(len(read_manifest(root / _METADATA[0])))
            ]
        with ThreadPoolExecutor() as pool_of_threads:
            images: Pixels = np.stack(list(pool_of_threads.map(_decode, data)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise FileFormatError(
            f"Cannot unpack the dataset {path}: {error}. Pack it again with `asymflow data pack`."
        ) from error
    for size in SIZES:
        with replacing(root / f"images-{size}.npy") as file:
            np.save(file, pool(images, _LARGEST // size) if size < _LARGEST else images)


def _member(index: int) -> str:
    return f"{index:05d}.webp"


def _encode(pixels: Pixels) -> bytes:
    # Premultiplied values, unconverted: viewers show soft edges too dark.
    picture = Image.frombytes("RGBA", pixels.shape[1::-1], pixels.tobytes())
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, exact=True, method=4)
    return file.getvalue()


def _decode(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA"))
