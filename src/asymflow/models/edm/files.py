"""Reads files of weights without running code, and puts the weights into networks."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from asymflow.core.errors import FileFormatError
from asymflow.models.files import check_origin

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""

M = TypeVar("M", bound=nn.Module)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata that safetensors have.

    Raises:
        FileFormatError: the file is missing, damaged, holds something else, or could run code.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, dict(file.metadata() or {})
        check_origin(path)
        found: object = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (
        OSError, SafetensorError, EOFError, KeyError, ValueError, RuntimeError,
        pickle.UnpicklingError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"Cannot read {path}: {str(error).splitlines()[0] if str(error) else error!r}. Give a "
            "safetensors file, or a .pt file that torch.save wrote and that holds tensors only."
        ) from error
    if not isinstance(found, dict):
        raise FileFormatError(
            f"{path} holds a {type(found).__name__} and not named tensors. Save the model's "
            "state_dict() instead."
        )
    state = cast("dict[str, Any]", found)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise FileFormatError(
                f"{path} holds {name!r}, which is no tensor, among its weights. Give a bare state "
                "dict."
            )
    return state, {}


def settings_of(metadata: Mapping[str, str], key: str) -> dict[str, object]:
    """What a file says of its network: the JSON object under a key of its metadata; empty without.

    Raises:
        FileFormatError: it is no JSON object.
    """
    try:
        found = json.loads(metadata.get(key, "{}"))
    except ValueError as error:
        raise FileFormatError(
            f"The metadata {key!r} is not JSON ({error}). Write it anew."
        ) from None
    if not isinstance(found, dict):
        raise FileFormatError(
            f"The metadata {key!r} is a {type(found).__name__}, and a JSON object is wanted. Write "
            "it anew."
        )
    return cast("dict[str, object]", found)


def shape(shapes: Shapes, name: str, dimensions: int, what: str) -> tuple[int, ...]:
    """The shape of a tensor from which the configuration of a network is read.

    Raises:
        FileFormatError: there is no such tensor, or it has another number of dimensions.
    """
    if name not in shapes:
        raise FileFormatError(
            f"These are not the weights of {what}: there is no tensor {name!r}, but "
            f"{_some(sorted(shapes)) or 'nothing'}. Give the state dict of an unmodified one."
        )
    found = shapes[name]
    if len(found) != dimensions or 0 in found:
        raise FileFormatError(
            f"These are not the weights of {what}: tensor {name!r} has shape {found}, and "
            f"{dimensions} dimensions were expected. Give the state dict of an unmodified one."
        )
    return found


def filled(model: M, state: Mapping[str, Tensor], what: str) -> M:
    """A network, on any device, with the tensors of a file in the place of its own.

    Raises:
        FileFormatError: tensors are missing, unexpected, of another shape or no numbers; says
            which.
    """
    wanted = model.state_dict()
    differing = [
        f"{name} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} instead of "
        f"{tuple(wanted[name].shape)}"
        for name, value in state.items()
        if name in wanted and (value.shape != wanted[name].shape or not value.is_floating_point())
    ]
    problems = [
        f"{kind}: {_some(names)}"
        for kind, names in (
            ("missing", [name for name in wanted if name not in state]),
            ("unexpected", [name for name in state if name not in wanted]),
            ("of another shape", differing),
        )
        if names
    ]
    if problems:
        raise FileFormatError(
            f"These are not the weights of {what}. Tensors {'; '.join(problems)}. Give the state "
            "dict of an unmodified one."
        )
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model.eval().requires_grad_(False)


def placed(model: M, device: str | torch.device, dtype: torch.dtype) -> M:
    """The network on a device, with its weights in a precision; tables keep theirs."""
    model.to(device)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _some(names: Iterable[str]) -> str:
    """The first few of them, and how many more."""
    known = list(names)
    more = f" and {len(known) - 4} more" if len(known) > 4 else ""
    return ", ".join(known[:4]) + more
