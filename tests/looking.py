"""A model that looks at reference drawings, or at none, too small to draw anything."""

from __future__ import annotations

from pathlib import Path

import torch

from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.styles import style_ids
from asymflow.models.embedded.transformer import TransformerConfig


def write(path: Path, references: int = 2) -> None:
    """Write its weights, random ones, to a file of safetensors."""
    config = PictureConfig(
        style_ids(),
        TransformerConfig(width=32, depth=1, head_dim=16, hidden=32),
        rank=0,
        detail=DetailConfig(8, 8),
        skip=0.2,
        references=references,
    )
    torch.manual_seed(0)
    model = PictureModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    embedded.save(model, path, training={})
