"""Published files of MiniT2I: tensor names, and the configuration from tensor shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from asymflow.core.errors import FileFormatError
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel

PREFIX = "model.net."
"""Of all names in published files."""

# Our tensor names, and those in published files.
_NAMES = (
    ("squeeze.", "img_embedder.proj1."),
    ("embed.", "img_embedder.proj2."),
    ("embed_text.", "txt_embedder."),
    ("padding", "mask_token"),
    ("head_norm.", "final_layer.norm_final."),
    ("head.", "final_layer.linear."),
)
_BLOCK_NAMES = (
    ("query_norm.", "q_norm."),
    ("key_norm.", "k_norm."),
    ("attention_norm.", "norm1."),
    ("qkv.", "qkv."),
    ("project.", "attn_proj."),
    ("mlp_norm.", "norm2."),
    ("gate.", "mlp.w1."),
    ("expand.", "mlp.w3."),
    ("contract.", "mlp.w2."),
)
_BLOCKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # Blocks, and what the names of their streams begin with.
    "text_blocks": ("txt_preamble_blocks", ("",)),
    "blocks": ("double_blocks", ("txt_", "img_")),
}
_UNUSED = ("t_embedder.", "pooled_embedder.")
"""Layers of the official network whose output it does not use."""

_READ = {
    "img_embedder.proj1.weight": 4,
    "txt_embedder.weight": 2,
    "mask_token": 3,
    "double_blocks.0.img_qkv.weight": 2,
    "double_blocks.0.img_mlp.w2.weight": 2,
    "double_blocks.0.q_norm.weight": 1,
}
"""Tensors that the configuration is read from, and how many dimensions they have."""


def recognises(names: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these names and shapes are of a MiniT2I network."""
    return all(len(names.get(PREFIX + name, ())) == count for name, count in _READ.items())


def published_name(name: str) -> str:
    """The published name of one of our tensors."""
    prefix, names, rest = "", _NAMES, name.removeprefix("transformer.")
    kind = rest.partition(".")[0]
    if kind in _BLOCKS:
        theirs, streams = _BLOCKS[kind]
        _, index, rest = rest.split(".", 2)
        prefix, names = f"{theirs}.{index}.", _BLOCK_NAMES
        if rest.startswith("streams."):
            _, stream, rest = rest.split(".", 2)
            prefix += streams[int(stream)]
    ours, theirs = next(pair for pair in names if rest.startswith(pair[0]))
    return PREFIX + prefix + theirs + rest.removeprefix(ours)


def config_of(
    state: Mapping[str, Tensor], *, size: int = 512, text_tokens: int = 256
) -> MiniT2IConfig:
    """The shape of the network that a published state dict is of.

    Args:
        state: under its published names.
        size: of the pictures; cannot be inferred from the weights.
        text_tokens: cannot be inferred either.

    Raises:
        FileFormatError: a tensor that the shape is read from is missing or has another rank.
        InputError: no network has this shape.
    """
    found = {name: _shape(state, PREFIX + name, count) for name, count in _READ.items()}
    bottleneck, channels, patch, _ = found["img_embedder.proj1.weight"]
    width, text_width = found["txt_embedder.weight"]
    [head_dim] = found["double_blocks.0.q_norm.weight"]
    return MiniT2IConfig(
        size=size,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(state, "double_blocks"),
        heads=found["double_blocks.0.img_qkv.weight"][0] // (3 * head_dim),
        head_dim=head_dim,
        hidden=found["double_blocks.0.img_mlp.w2.weight"][1],
        bottleneck=bottleneck,
        text_width=text_width,
        text_depth=_count(state, "txt_preamble_blocks"),
        text_tokens=text_tokens,
    )


def built(config: MiniT2IConfig, state: Mapping[str, Tensor]) -> MiniT2IModel:
    """Build the network of a published state dict, which must have all tensors and no others.

    Those of the embeddings of time and pooled text have no effect, and may be missing.

    Raises:
        FileFormatError: tensors are missing, unexpected or of another shape; says which.
    """
    with torch.device("meta"):
        model = MiniT2IModel(config)
    wanted = model.state_dict()
    theirs = {name: published_name(name) for name in wanted}
    unused = tuple(PREFIX + name for name in _UNUSED)
    known = set(theirs.values())
    missing = [name for name in theirs.values() if name not in state]
    foreign = [name for name in state if name not in known and not name.startswith(unused)]
    differing = [
        f"{theirs[name]} {tuple(state[theirs[name]].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if theirs[name] in state and state[theirs[name]].shape != value.shape
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
            f"These are not the weights of a MiniT2I with {config.depth} blocks of width "
            f"{config.width}. Tensors {'; '.join(problems)}. Give the weights of an unmodified "
            "MiniT2I."
        )
    tensors = {name: state[theirs[name]].contiguous() for name in wanted}
    model.load_state_dict(tensors, assign=True)
    return model


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise FileFormatError(
            f"These are not the weights of a MiniT2I: there is no tensor {name!r}, but "
            f"{_some(sorted(state)) or 'nothing'}. Give the weights of an unmodified MiniT2I."
        )
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise FileFormatError(
            f"These are not the weights of a MiniT2I: tensor {name!r} has shape {shape}, and "
            f"{dimensions} dimensions were expected. Give the weights of an unmodified MiniT2I."
        )
    return shape


def _count(state: Mapping[str, Tensor], blocks: str) -> int:
    """The number of blocks of that name; where one is missing, `built` reports it."""
    start = f"{PREFIX}{blocks}."
    return len({n[len(start) :].partition(".")[0] for n in state if n.startswith(start)})


def _some(names: Iterable[str]) -> str:
    """The first few of them, and how many more."""
    known = list(names)
    more = f" and {len(known) - 4} more" if len(known) > 4 else ""
    return ", ".join(known[:4]) + more
