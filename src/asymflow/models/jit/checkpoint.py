"""Published files of JiT networks: tensor names, and the configuration from tensor shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.jit.network import SHAPES, JitConfig, JitModel, position_table, rotary_tables

# Tensor names in published state dicts, and ours.
_NAMES = (
    ("t_embedder.mlp.", "time."),
    ("y_embedder.embedding_table.", "label."),
    ("x_embedder.proj1.", "squeeze."),
    ("x_embedder.proj2.", "embed."),
    ("x_embedder.pos_embed", "position"),
    ("pos_embed", "position"),
    ("in_context_posemb", "class_position"),
    ("final_layer.norm_final.", "head_norm."),
    ("final_layer.adaLN_modulation.1.", "head_modulation."),
    ("final_layer.linear.", "head."),
)
_BLOCK_NAMES = (
    ("norm1.", "attention_norm."),
    ("attn.q_norm.", "query_norm."),
    ("attn.k_norm.", "key_norm."),
    ("attn.qkv.", "qkv."),
    ("attn.proj.", "project."),
    ("norm2.", "mlp_norm."),
    ("mlp.w12.", "expand."),
    ("mlp.w3.", "contract."),
    ("adaLN_modulation.1.", "modulation."),
)


def recognises(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tensors of such names and shapes are a published network."""
    names = {name.removeprefix("net.") for name in shapes}
    return {"x_embedder.proj1.weight", "y_embedder.embedding_table.weight"} <= names


def renamed(name: str) -> str | None:
    """Our name of a tensor in a published state dict; None if it can be computed.

    Unknown names are kept; `built` reports them.
    """
    if name.startswith(("feat_rope.", "feat_rope_incontext.")):
        return None
    if name == "proj_buffer":
        return "basis"
    if name == "scale_buffer":
        return "scale"
    prefix, names, rest = "transformer.", _NAMES, name
    if name.startswith("blocks."):
        _, index, rest = (*name.split(".", 2), "")[:3]
        prefix, names = f"transformer.blocks.{index}.", _BLOCK_NAMES
    for theirs, ours in names:
        if rest.startswith(theirs):
            return prefix + ours + rest.removeprefix(theirs)
    return name


def published_name(name: str) -> str:
    """The published name of one of our tensors: the inverse of `renamed`."""
    if name in ("basis", "scale"):
        return {"basis": "proj_buffer", "scale": "scale_buffer"}[name]
    prefix, names, rest = "", _NAMES, name.removeprefix("transformer.")
    if rest.startswith("blocks."):
        _, index, rest = rest.split(".", 2)
        prefix, names = f"blocks.{index}.", _BLOCK_NAMES
    theirs, ours = next(pair for pair in reversed(names) if rest.startswith(pair[1]))
    return prefix + theirs + rest.removeprefix(ours)


def class_start_of(name: str) -> int | None:
    """The block at which class tokens are added in a network of such a name, "JiT-B/16"."""
    size, _, _ = name.removeprefix("JiT-").partition("/")
    return SHAPES[size][-1] if size in SHAPES else None


def config_of(
    state: Mapping[str, Tensor],
    *,
    class_start: int | None = None,
    noise_scale: float | None = None,
) -> JitConfig:
    """The shape of the network that a published state dict is of.

    Args:
        state: under its published names, without the prefix "net.".
        class_start: the block at which class tokens are added. It cannot be inferred from the
            weights, and is known for the depths of B, L and H only.
        noise_scale: that it was trained with; cannot be inferred either. By default that of the
            papers, size / 256; a rank-asymmetric model scales its data itself, and has 1.

    Raises:
        FileFormatError: a tensor that the shape is read from is missing or has another rank.
        InputError: `class_start` is needed, or no block of the network.
    """
    squeeze = _shape(state, "x_embedder.proj1.weight", 4)
    classes, width = _shape(state, "y_embedder.embedding_table.weight", 2)
    head_dim = _shape(state, "blocks.0.attn.q_norm.weight", 1)[0]
    hidden = _shape(state, "blocks.0.mlp.w3.weight", 2)[1]
    tokens = _shape(state, "in_context_posemb", 3)[1] if "in_context_posemb" in state else 0
    depth = 1 + max(_index(name) for name in state)
    patch = squeeze[2]
    position = next((n for n in ("pos_embed", "x_embedder.pos_embed") if n in state), None)
    side = 16 if position is None else math.isqrt(_shape(state, position, 3)[1])
    if class_start is None:
        class_start = {d: start for _, d, _, _, _, start in SHAPES.values()}.get(depth)
    if class_start is None:
        raise InputError(
            f"This network has {depth} blocks, which no published JiT has, so the block at which "
            "its class tokens are added is not known. Give class_start."
        )
    if class_start not in range(depth):
        raise InputError(
            f"Class tokens cannot be added at block {class_start} of {depth}. "
            f"Choose 0 to {depth - 1}."
        )
    rank = _shape(state, "proj_buffer", 2)[1] if "proj_buffer" in state else None
    return JitConfig(
        size=side * patch,
        patch=patch,
        channels=squeeze[1],
        width=width,
        depth=depth,
        heads=width // head_dim,
        hidden=hidden,
        bottleneck=squeeze[0],
        classes=classes - 1,
        class_tokens=tokens,
        class_start=class_start,
        noise_scale=noise_scale
        if noise_scale is not None
        else 1.0
        if rank is not None
        else side * patch / 256,
        rank=rank,
    )


def built(config: JitConfig, state: Mapping[str, Tensor]) -> JitModel:
    """Build the network of a published state dict, which must have all tensors and no others.

    Tables of positions, which can be computed, may be missing.

    Raises:
        FileFormatError: tensors are missing, unexpected or of another shape; says which.
    """
    tensors = {}
    foreign: list[str] = []
    with torch.device("meta"):
        model = JitModel(config)
    wanted = model.state_dict()
    for name, value in state.items():
        ours = renamed(name)
        if ours is None:
            continue
        if ours not in wanted:
            foreign.append(name)
        else:
            tensors[ours] = value.T if ours == "basis" else value
    computed = {
        "transformer.position": position_table((config.side, config.side), config.width)[None]
    }
    if config.rank is not None:
        computed["scale"] = torch.ones(())
    tensors = computed | tensors
    missing = [published_name(name) for name in wanted if name not in tensors]
    differing = [
        f"{published_name(name)} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in tensors.items()
        if value.shape != wanted[name].shape
    ]
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", missing), ("unexpected", foreign), ("of another shape", differing),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise FileFormatError(
            f"These are not the weights of a JiT with {config.depth} blocks of width "
            f"{config.width}. Tensors {'; '.join(problems)}. Give the state dict of an unmodified "
            "JiT or AsymFlow-JiT."
        )
    model.load_state_dict({n: v.contiguous() for n, v in tensors.items()}, assign=True)
    transformer = model.transformer
    cos, sin = rotary_tables((config.side, config.side), config.width // config.heads)
    transformer.rope_cos, transformer.rope_sin = cos, sin
    return model


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise FileFormatError(
            f"These are not the weights of a JiT: there is no tensor {name!r}, but "
            f"{_some(sorted(state)) or 'nothing'}. Give the state dict of a JiT or AsymFlow-JiT."
        )
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise FileFormatError(
            f"These are not the weights of a JiT: tensor {name!r} has shape {shape}, and "
            f"{dimensions} dimensions were expected. Give the state dict of a JiT or AsymFlow-JiT."
        )
    return shape


def _index(name: str) -> int:
    """Index of the block of a tensor, or -1."""
    part = name.split(".")[1] if name.startswith("blocks.") else ""
    return int(part) if part.isdecimal() else -1


def _some(names: Iterable[str]) -> str:
    """The first few of them, and how many more."""
    known = list(names)
    more = f" and {len(known) - 4} more" if len(known) > 4 else ""
    return ", ".join(known[:4]) + more
