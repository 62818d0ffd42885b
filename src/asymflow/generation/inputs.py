"""Input pictures: given as options, or recorded in a picture that is replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asymflow.core.errors import InputError
from asymflow.generation.metadata import Record, Source
from asymflow.generation.spec import InputImage, Reference, check_shapes
from asymflow.io import images

Pixels = NDArray[np.float32]


def find(
    image: Path | None, mask: Path | None, replayed: Path | None, record: Record | None
) -> tuple[InputImage | None, InputImage | None]:
    """The image and the mask: those given, otherwise those of the replayed picture.

    Raises:
        InputError: a mask without an image, of another shape or without white, or a recorded
            input that is missing or has changed.
        FileFormatError: a file cannot be read.
    """
    if image is not None:
        from_image = _read(image, images.read)
    elif replayed is not None and record is not None and record.image is not None:
        from_image = _read_again(record.image, replayed, "image", images.read)
    else:
        from_image = None
    if mask is not None:
        if from_image is None:
            raise InputError("--mask says which part of a picture to repaint. Add --image FILE.")
        from_mask = _read(mask, images.read_mask)
        if not from_mask.pixels.any():
            raise InputError(
                f"{mask} is black or transparent all over, so nothing would be repainted. Make it "
                "white where something is to change."
            )
    elif image is None and replayed is not None and record is not None and record.mask is not None:
        from_mask = _read_again(record.mask, replayed, "mask", images.read_mask)
    else:
        from_mask = None
    if from_image is not None and from_mask is not None:
        check_shapes(from_image, from_mask)
    return from_image, from_mask


def reference(option: str | None, replayed: Path | None, record: Record | None) -> Reference:
    """The reference: as given, otherwise as in the replayed picture, otherwise the library.

    Raises:
        InputError: a recorded picture is missing or has changed.
        FileFormatError: a file cannot be read.
    """
    if option is not None:
        return "none" if option == "none" else _read(Path(option), images.read)
    if replayed is None or record is None or record.reference is None:
        return "library"
    if record.reference.source is not None:
        return _read_again(record.reference.source, replayed, "reference", images.read)
    return "none" if record.reference.kind == "none" else "library"


def _read(path: Path, read: Callable[[Path], Pixels]) -> InputImage:
    pixels = read(path)
    return InputImage(Source(str(path), images.digest(pixels)), pixels)


def _read_again(
    source: Source, replayed: Path, option: str, read: Callable[[Path], Pixels]
) -> InputImage:
    """A recorded input, at its recorded path or beside the replayed picture."""
    path = Path(source.path)
    candidates = (path, replayed.parent / path, replayed.parent / path.name)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise InputError(
            f"{replayed} was made from the {option} {source.path}, which is not there any more. "
            f"Put it beside {replayed.name}, or give another one with --{option}."
        )
    pixels = read(found)
    if images.digest(pixels) != source.sha256:
        raise InputError(
            f"{found} has changed since {replayed} was made from it, so the result would differ. "
            f"Restore it, or accept the change by giving it with --{option}."
        )
    return InputImage(source, pixels, found)
