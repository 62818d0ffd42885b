"""The pictures of Fashion-MNIST: 28 px, grey, ten classes, padded with black to 32 px.

The networks learn from one part of the training set and the judge from another; the test set is
seen by neither, so its distance to the networks' part is the anchor of all distances.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asymflow.core.errors import FileFormatError, InputError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""
CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
SIDE = 32
_STORED = 28
_LEARNT = 45_000
"""Pictures of the training set, in the order of the file, that networks learn from."""
_FILES = {"train": "train", "test": "t10k"}


def pictures(part: str, folder: Path = FOLDER) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures [n, 32, 32] and their classes [n].

    Args:
        part: "networks" (45,000), "judge" (15,000) or "test" (10,000).
        folder: of the four files.

    Raises:
        InputError: the folder does not hold them.
        FileFormatError: a file is damaged.
    """
    name = _FILES["test" if part == "test" else "train"]
    labels = _read(folder / f"{name}-labels-idx1-ubyte.gz", 8, ())
    pixels = _read(folder / f"{name}-images-idx3-ubyte.gz", 16, (_STORED, _STORED))
    rows = {"networks": slice(_LEARNT), "judge": slice(_LEARNT, None), "test": slice(None)}[part]
    margin = (SIDE - _STORED) // 2
    padded = np.pad(pixels[rows], ((0, 0), (margin, margin), (margin, margin)))
    return padded, labels[rows].astype(np.int64)


def _read(path: Path, header: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array [n, *shape] of a file in the format IDX."""
    if not path.is_file():
        raise InputError(
            f"There is no file {path}. Install Debian's package dataset-fashion-mnist, or give "
            "the folder of its four files with --data."
        )
    try:
        content = gzip.decompress(path.read_bytes())
        return np.frombuffer(content, np.uint8, offset=header).reshape(-1, *shape)
    except (OSError, EOFError, ValueError) as error:
        raise FileFormatError(f"Cannot read {path}: {error}. Fetch it again.") from error
