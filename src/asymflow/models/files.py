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
        # Checkpoints of training scripts also contain their arguments, which are plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
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


def nested(found: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict, or of the first one in a dict of several."""
    inner = next((value for value in found.values() if isinstance(value, dict)), None)
    state: Mapping[str, Any] = found if inner is None else cast("dict[str, Any]", inner)
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
