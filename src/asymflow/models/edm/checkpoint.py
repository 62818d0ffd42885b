"""Files of EDM's networks: what they are, and how they are loaded.

The architecture is read from names and shapes. The preconditioning cannot be: the metadata "edm" of
a safetensors file has it, a JSON object of "class_name" and the arguments of that class in the
official code, such as {"class_name": "EDMPrecond", "sigma_data": 0.5, "label_dropout": 0.1}.
`scripts/convert_edm.py` writes such files from the published pickles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from asymflow.core.checks import as_path
from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.edm.callables import CallableAdapter, edm
from asymflow.models.edm.files import Shapes, filled, placed, read, settings_of, shape
from asymflow.models.edm.networks import DhariwalConfig, SongConfig
from asymflow.models.edm.preconditioning import EdmModel, Preconditioning, named
from asymflow.models.hashing import digest_of

KEY = "edm"
"""Of the metadata."""
_WHAT = "a network of EDM"


def recognises(names: Shapes) -> bool:
    """Whether tensors of these names and shapes are those of a network of EDM."""
    return (
        len(names.get("model.map_layer0.weight", ())) == 2
        and len(names.get("model.map_layer1.weight", ())) == 2
        and _side(names) is not None
    )


def config_of(shapes: Shapes) -> SongConfig | DhariwalConfig:
    """The shape of the network that a state dict is of.

    Raises:
        FileFormatError: a tensor that the shape is read from is missing or has another rank.
    """
    size = _side(shapes) or 0
    first = shape(shapes, f"model.enc.{size}x{size}_conv.weight", 4, _WHAT)
    embedding, noise = shape(shapes, "model.map_layer0.weight", 2, _WHAT)
    sides = [size]
    while sides[-1] > 1 and _holds(shapes, f"model.enc.{sides[-1] // 2}x{sides[-1] // 2}_"):
        sides.append(sides[-1] // 2)
    widths = tuple(
        shape(shapes, f"model.enc.{side}x{side}_block0.conv0.weight", 4, _WHAT)[0] for side in sides
    )
    blocks = sum(
        f"model.enc.{size}x{size}_block{index}.conv0.weight" in shapes
        for index in range(len(shapes))
    )
    attention = tuple(
        side for side in sides if f"model.enc.{side}x{side}_block0.qkv.weight" in shapes
    )
    classes = 0
    if "model.map_label.weight" in shapes:
        classes = shape(shapes, "model.map_label.weight", 2, _WHAT)[1]
    augmentations = 0
    if "model.map_augment.weight" in shapes:
        augmentations = shape(shapes, "model.map_augment.weight", 2, _WHAT)[1]
    if "model.out_conv.weight" in shapes:
        outputs = shape(shapes, "model.out_conv.weight", 4, _WHAT)[0]
        return DhariwalConfig(
            size, first[1], outputs, classes, augmentations, noise, widths, embedding, blocks,
            attention,
        )  # fmt: skip
    head = f"model.dec.{size}x{size}_aux_conv.weight"
    half = f"model.enc.{size // 2}x{size // 2}_down.conv0.resample_filter"
    return SongConfig(
        size=size,
        channels=first[1],
        outputs=shape(shapes, head, 4, _WHAT)[0],
        classes=classes,
        augmentations=augmentations,
        width=first[0],
        widths=widths,
        embedding=embedding,
        noise=noise,
        blocks=blocks,
        attention=attention,
        fourier="model.map_noise.freqs" in shapes,
        encoder="residual"
        if any(name.endswith("_aux_residual.weight") for name in shapes)
        else "skip"
        if any(name.endswith("_aux_skip.weight") for name in shapes)
        else "standard",
        decoder="skip"
        if any(name.endswith("_aux_up.resample_filter") for name in shapes)
        else "standard",
        taps=shape(shapes, half, 4, _WHAT)[-1] if len(sides) > 1 else 2,
    )


def load(
    path: Path | str,
    *,
    preconditioning: Preconditioning | str | None = None,
    null: bool | None = None,
    class_names: Sequence[str] = (),
    factors: Sequence[int] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CallableAdapter:
    """Load a network of EDM from a safetensors file, or a bare state dict.

    The published pickles contain code and are refused: `scripts/convert_edm.py` converts them.

    Args:
        preconditioning: that the network was trained with, where the file does not say it: one of
            `asymflow.models.edm.preconditioning`, or the name of the official class, "EDMPrecond",
            "VPPrecond", "VEPrecond" or "iDDPMPrecond", with its default settings.
        null: whether labels were dropped in training, with all zeros instead; by default whether
            the metadata have a `label_dropout`.
        class_names, factors: of the adapter, as of `asymflow.models.edm.edm`.

    Raises:
        FileFormatError: the file is missing, damaged, holds code or another kind of model; the
            message lists tensors that are missing, unexpected or of another shape.
        InputError: the preconditioning is neither given nor known, or an argument is impossible.
    """
    path = as_path("path", path)
    state, metadata = read(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        config = config_of(shapes)
        settings = settings_of(metadata, KEY)
        if "u" in shapes:
            settings["M"] = shape(shapes, "u", 1, _WHAT)[0] - 1
        if preconditioning is None:
            preconditioning = _stored(settings)
        elif isinstance(preconditioning, str):
            preconditioning = named(preconditioning, settings)
        with torch.device("meta"):
            model = EdmModel(config, preconditioning)
        filled(model, state, f"{_WHAT} for {config.size} px, with {preconditioning}")
    except FileFormatError as error:
        raise FileFormatError(f"Cannot read {path}. {error}") from error
    except InputError as error:
        raise InputError(f"Cannot read {path}. {error}") from error
    if null is None:
        null = config.classes > 0 and bool(settings.get("label_dropout"))
    digest = digest_of(model, repr((config, preconditioning, null)).encode())
    adapter = edm(
        placed(model, device, dtype),
        channels=config.channels,
        classes=config.classes,
        null=null,
        grain=2 ** (len(config.widths) - 1),
        device=device,
        factors=factors,
        size=(config.size, config.size),
        class_names=class_names,
        title=path.stem,
        name=f"edm:{digest[:12]}",
    )
    said = {**adapter.settings, "preconditioning": str(preconditioning)}
    return replace(adapter, settings=said)


def _stored(settings: dict[str, object]) -> Preconditioning:
    if "class_name" not in settings:
        raise InputError(
            "Its preconditioning is not known: names and shapes of tensors do not say it, and the "
            f"file has no metadata {KEY!r}. Give preconditioning=..., 'EDMPrecond' for networks "
            "that were trained by EDM's own code, or convert the pickle by scripts/convert_edm.py."
        )
    return named(settings["class_name"], settings)


def _side(shapes: Shapes) -> int | None:
    """Side of the pictures of training, by the name of the first layer."""
    found = (re.fullmatch(r"model\.enc\.(\d{1,5})x\1_conv\.weight", name) for name in shapes)
    return next((int(each[1]) for each in found if each is not None), None)


def _holds(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)
