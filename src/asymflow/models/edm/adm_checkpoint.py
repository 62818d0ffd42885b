"""Files of guided-diffusion's networks: what they are, and how they are loaded.

The architecture is read from names and shapes. What these do not say has the names of the flags of
the official commands, and is taken from the arguments of `load`, from the metadata
"guided_diffusion" of a safetensors file, a JSON object such as {"image_size": 64,
"num_head_channels": 64, "noise_schedule": "cosine"}, or from the table of published models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from asymflow.core.checks import as_path, whole
from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.edm.adm import AdmConfig, AdmNetwork
from asymflow.models.edm.callables import CallableAdapter, guided_diffusion
from asymflow.models.edm.files import Shapes, filled, placed, read, settings_of, shape
from asymflow.models.hashing import digest_of

KEY = "guided_diffusion"
"""Of the metadata."""
NoiseSchedule = Literal["linear", "cosine"]
_WHAT = "a network of guided-diffusion"
_MOST_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of the official commands that weights do not say; None where they are not known."""

    image_size: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    use_new_attention_order: bool | None = None
    noise_schedule: NoiseSchedule | None = None
    diffusion_steps: int | None = None
    rescale_timesteps: bool | None = None
    predict_xstart: bool | None = None

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Flags:
        """Those among others.

        Raises:
            InputError: one has an impossible value.
        """
        given = {each.name: settings.get(each.name) for each in fields(cls)}
        if given["num_head_channels"] == -1:  # the official code's way to say none
            given["num_head_channels"] = None
        upsample = settings.get("num_heads_upsample", -1)
        if upsample not in (-1, None, given["num_heads"]):
            raise InputError(
                f"num_heads_upsample={upsample!r} is not supported: heads are as many on the way "
                "up as on the way down."
            )
        for name, value in given.items():
            if value is None:
                continue
            if name in ("use_new_attention_order", "rescale_timesteps", "predict_xstart"):
                if not isinstance(value, bool):
                    raise InputError(f"{name}={value!r} is not possible. Choose True or False.")
            elif name == "noise_schedule":
                if value not in ("linear", "cosine"):
                    raise InputError(f"{name}={value!r} is not known. Choose 'linear' or 'cosine'.")
            else:
                given[name] = whole(name, value, 1, _MOST_STEPS)
        return cls(**given)  # pyright: ignore[reportArgumentType]

    def over(self, other: Flags) -> Flags:
        """These flags, and where they are not known those of another one."""
        merged = {
            each.name: value if (value := getattr(self, each.name)) is not None
            else getattr(other, each.name)
            for each in fields(self)
        }  # fmt: skip
        if self.num_heads is not None and self.num_head_channels is None:
            merged["num_head_channels"] = None
        return Flags(**merged)


_LARGE = Flags(num_head_channels=64, noise_schedule="linear")
PUBLISHED: Mapping[tuple[int, tuple[int, ...], int], Flags] = {
    # By width, widths and blocks; 256 px of ImageNet, with and without classes, and of LSUN.
    (192, (192, 384, 576, 768), 3): Flags(
        64, num_head_channels=64, use_new_attention_order=True, noise_schedule="cosine"
    ),
    (256, (256, 256, 512, 768, 1024), 2): Flags(128, num_heads=4, noise_schedule="linear"),
    (256, (256, 256, 512, 512, 1024, 1024), 2): replace(_LARGE, image_size=256),
    (256, (128, 256, 256, 512, 512, 1024, 1024), 2): replace(_LARGE, image_size=512),
}
"""Flags of the published models of guided-diffusion."""


def recognises(names: Shapes) -> bool:
    """Whether tensors of these names and shapes are those of a network of guided-diffusion."""
    anchors = {
        "time_embed.0.weight": 2,
        "input_blocks.0.0.weight": 4,
        "middle_block.1.qkv.weight": 3,
        "output_blocks.0.0.in_layers.0.weight": 1,
        "out.2.weight": 4,
    }
    return all(len(names.get(name, ())) == rank for name, rank in anchors.items())


def config_of(shapes: Shapes, flags: Flags) -> tuple[AdmConfig, Flags]:
    """The shape of the network that a state dict is of, and the flags with those of the model.

    Raises:
        FileFormatError: a tensor that the shape is read from is missing or has another rank, or
            the network is of another kind.
        InputError: a flag is needed that the weights do not say.
    """
    width = shape(shapes, "time_embed.0.weight", 2, _WHAT)[1]
    first = shape(shapes, "input_blocks.0.0.weight", 4, _WHAT)
    if not _count(shapes, "output_blocks"):
        raise FileFormatError(
            "This network has no output blocks: a classifier, which makes no pictures. Give a "
            "diffusion model, such as 64x64_diffusion.pt."
        )
    outputs = shape(shapes, "out.2.weight", 4, _WHAT)[0]
    if first[1] > 4 or outputs not in (first[1], 2 * first[1]):
        raise FileFormatError(
            f"This network maps {first[1]} channels to {outputs}: an upsampler, which is given a "
            "small picture too, and is not supported. Give a model that makes pictures."
        )
    count = _count(shapes, "output_blocks")
    # The last block of every level but the first has a layer that doubles the picture.
    levels = 1 + sum(_doubles(shapes, index) for index in range(count))
    blocks = count // levels - 1
    starts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = tuple(
        shape(shapes, f"input_blocks.{start}.0.out_layers.3.weight", 4, _WHAT)[0]
        for start in starts
    )
    affine = shape(shapes, "input_blocks.1.0.emb_layers.1.weight", 2, _WHAT)[0]
    flags = flags.over(PUBLISHED.get((width, widths, blocks), Flags()))
    if (
        flags.image_size is None
        or flags.noise_schedule is None
        or not (flags.num_heads or flags.num_head_channels)
    ):
        raise InputError(
            "It is no published model, and its weights do not say everything. Give image_size=..., "
            "num_heads=... or num_head_channels=..., and noise_schedule='linear' or 'cosine': the "
            "flags that it was trained with."
        )
    config = AdmConfig(
        size=flags.image_size,
        channels=first[1],
        outputs=outputs,
        width=width,
        widths=widths,
        blocks=blocks,
        attention=tuple(
            level
            for level, start in enumerate(starts)
            if f"input_blocks.{start}.1.qkv.weight" in shapes
        ),
        classes=shape(shapes, "label_emb.weight", 2, _WHAT)[0]
        if "label_emb.weight" in shapes
        else 0,
        heads=flags.num_heads or 1,
        head_width=flags.num_head_channels,
        new_order=bool(flags.use_new_attention_order),
        film=affine == 2 * widths[0],
        residual=not any(name.endswith((".0.op.weight", ".conv.weight")) for name in shapes),
    )
    return config, flags


def load(
    path: Path | str,
    *,
    image_size: int | None = None,
    num_heads: int | None = None,
    num_head_channels: int | None = None,
    use_new_attention_order: bool | None = None,
    noise_schedule: NoiseSchedule | None = None,
    diffusion_steps: int | None = None,
    rescale_timesteps: bool | None = None,
    predict_xstart: bool | None = None,
    clip_denoised: bool = True,
    null: int | None = None,
    class_names: Sequence[str] = (),
    factors: Sequence[int] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CallableAdapter:
    """Load a checkpoint of guided-diffusion: a state dict, as .pt or safetensors.

    Of .pt files only tensors are read; no code is run. The published models need no flags.

    Args:
        image_size, num_heads, num_head_channels, use_new_attention_order: flags of training, where
            neither the file nor the table of published models has them.
        noise_schedule, diffusion_steps, rescale_timesteps, predict_xstart: likewise.
        clip_denoised: x_0 is clipped to [-1, 1], the default of the official sampling commands.
        null: the label used in training for dropped ones, for guidance; the published models have
            none.
        class_names, factors: of the adapter, as of `asymflow.models.edm.guided_diffusion`.

    Raises:
        FileFormatError: the file is missing, damaged or holds another kind of model; the message
            lists tensors that are missing, unexpected or of another shape.
        InputError: a flag is needed, or is impossible.
    """
    path = as_path("path", path)
    state, metadata = read(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        given = Flags.of(
            {
                "image_size": image_size,
                "num_heads": num_heads,
                "num_head_channels": num_head_channels,
                "use_new_attention_order": use_new_attention_order,
                "noise_schedule": noise_schedule,
                "diffusion_steps": diffusion_steps,
                "rescale_timesteps": rescale_timesteps,
                "predict_xstart": predict_xstart,
            }
        )
        stored = Flags.of(settings_of(metadata, KEY))
        config, flags = config_of(shapes, given.over(stored))
        with torch.device("meta"):
            model = AdmNetwork(config)
        filled(model, state, f"{_WHAT} with {len(config.widths)} levels of {config.blocks} blocks")
    except FileFormatError as error:
        raise FileFormatError(f"Cannot read {path}. {error}") from error
    except InputError as error:
        raise InputError(f"Cannot read {path}. {error}") from error
    # A null label that is the last of the table is no class.
    classes = config.classes - (null is not None and null == config.classes - 1)
    digest = digest_of(model, repr((config, flags, null, clip_denoised)).encode())
    adapter = guided_diffusion(
        placed(model, device, dtype),
        alphas_cumprod(flags.noise_schedule or "linear", flags.diffusion_steps or 1000),
        channels=config.channels,
        prediction="sample" if flags.predict_xstart else "epsilon",
        classes=classes,
        null=null,
        clip_denoised=clip_denoised,
        rescale_timesteps=bool(flags.rescale_timesteps),
        grain=2 ** (len(config.widths) - 1),
        device=device,
        factors=factors,
        size=(config.size, config.size),
        class_names=class_names,
        title=path.stem,
        name=f"guided-diffusion:{digest[:12]}",
    )
    heads = f"{config.head_width} channels" if config.head_width else f"{config.heads} in a block"
    order = "new" if config.new_order else "legacy"
    said = {**adapter.settings, "heads": f"{heads}, {order} order"}
    return replace(adapter, settings=said)


def alphas_cumprod(schedule: NoiseSchedule, steps: int) -> Tensor:
    """alpha^2 [steps] of the official schedules, float64."""
    if schedule == "linear":
        scale = 1000 / steps
        betas = torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64)
    else:
        ramp = torch.arange(steps + 1, dtype=torch.float64) / steps
        squares = ((ramp + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        betas = (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0)


def _count(shapes: Shapes, part: str) -> int:
    """Number of blocks."""
    return 1 + max((_index(name, part) for name in shapes), default=-1)


def _index(name: str, part: str) -> int:
    """The index of the block of a tensor, or -1."""
    first, _, rest = name.partition(".")
    index = rest.partition(".")[0]
    return int(index) if first == part and index.isdecimal() and len(index) < 5 else -1


def _doubles(shapes: Shapes, index: int) -> bool:
    """Whether a block of the decoder has a layer that doubles the picture."""
    return any(
        f"output_blocks.{index}.{layer}.{name}.weight" in shapes
        for layer in (1, 2)
        for name in ("conv", "in_layers.0")
    )
