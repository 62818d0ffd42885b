"""Files of weights: what is in them, without running anything that is."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from asymflow.core.errors import FileFormatError

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""

_PERSISTENT = b"torch_utils.persistence"
"""In pickles of EDM: classes that are stored with their source code."""
_BEGINNING = 4096  # bytes
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Files of torch.save before version 1.6 begin with a pickle of this number."""


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name; no weights are read.

    Raises:
        FileFormatError: the file is damaged or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            names: list[str] = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"Cannot read {path}: {error}. It is damaged, or no safetensors file: fetch it again."
        ) from error


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, which `shapes` has read."""
    with safe_open(path, "pt") as file:
        return cast("dict[str, str]", file.metadata() or {})


def tensors(path: Path) -> Mapping[str, Any]:
    """Load a file: a state dict, or a dict of state dicts and plain values.

    From files of `torch.save` only tensors and plain values are loaded.

    Raises:
        FileFormatError: the file is missing, damaged, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_origin(path)
        mapped = zipfile.is_zipfile(path)
        # Checkpoints of training scripts also contain their arguments, which are plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        OSError, SafetensorError, EOFError, KeyError, ValueError, RuntimeError,
        pickle.UnpicklingError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"Cannot read {path}: {str(error).splitlines()[0] if str(error) else error!r}. Give a "
            "safetensors file, or a .pth file that torch.save wrote and that holds tensors only."
        ) from error
    if not isinstance(found, dict):
        raise FileFormatError(
            f"{path} holds a {type(found).__name__} and not named tensors. Save the model's "
            "state_dict() instead."
        )
    return cast("dict[str, Any]", found)


def check_origin(path: Path) -> None:
    """Check that a file can be one that torch.save wrote: a zip archive, or a certain pickle.

    Raises:
        FileFormatError: it is another pickle, which may hold code, or something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    if _PERSISTENT in beginning:
        raise FileFormatError(
            f"Cannot read {path}: it is a pickle of EDM, which holds code beside its weights, and "
            "no code of files is run. Convert it once, in EDM's own clone, by "
            "scripts/convert_edm.py: see docs/guide/edm.md."
        )
    if beginning.startswith(b"\x80") and not beginning.startswith(_LEGACY):
        raise FileFormatError(
            f"Cannot read {path}: it is a pickle that torch.save did not write. It may hold code, "
            "and no code of files is run. Give a safetensors file."
        )
    if not beginning.startswith((_LEGACY, b"PK")):
        what = f"it begins with {beginning[:8]!r}" if beginning else "it is empty"
        raise FileFormatError(
            f"Cannot read {path}: it is no file of weights, since {what}. Give a safetensors file, "
            "a checkpoint of torch.save, or a folder of diffusers."
        )


def nested(found: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict, or of the first one in a dict of several."""
    inner = next((value for value in found.values() if isinstance(value, dict)), None)
    state: Mapping[str, Any] = found if inner is None else cast("dict[str, Any]", inner)
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
