"""The text encoder of MiniT2I: a frozen T5, FLAN-T5-large in the published models.

Prompts are encoded one by one, without padding: positions behind a prompt have no effect on its
features, and the network replaces theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from asymflow.core.errors import FileFormatError, MissingExtra
from asymflow.models.diffusers.weights import quiet

_ADVICE = (
    "Give text_encoder, a folder with FLAN-T5-large: config.json, model.safetensors and "
    "tokenizer.json."
)


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoder:
    """Features of prompts.

    Attributes:
        encoder: transformers' `T5EncoderModel`.
        tokenizer: that truncates prompts.
    """

    encoder: Any
    tokenizer: Tokenizer

    def __call__(self, prompt: str) -> Tensor:
        """Features [1, l, d] of a prompt of l tokens."""
        ids = torch.tensor([self.tokenizer.encode(prompt).ids], dtype=torch.long)
        return self.encoder(input_ids=ids.to(self.encoder.device)).last_hidden_state


def load_text_encoder(folder: Path, tokens: int, device: str | torch.device) -> TextEncoder:
    """The text encoder of a folder as transformers or diffusers saves it, in float32.

    Args:
        folder: holds the encoder, or has it in "text_encoder"; its tokenizer.json is there too, or
            in the folder "tokenizer" beside the encoder's.
        tokens: that prompts are truncated to.
        device: of the encoder.

    Raises:
        FileFormatError: a file is missing or damaged, or of another kind of model.
        MissingExtra: transformers is not installed.
    """
    inner = folder / "text_encoder"
    encoder = inner if inner.is_dir() else folder
    if not (encoder / "config.json").is_file():
        raise FileFormatError(f"There is no text encoder in {inner} or {folder}. {_ADVICE}")
    places = [encoder / "tokenizer.json", encoder.parent / "tokenizer" / "tokenizer.json"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FileFormatError(
            f"The text encoder in {encoder} has no tokenizer: there is no "
            f"{' or '.join(map(str, places))}. {_ADVICE}"
        )
    return TextEncoder(_encoder(encoder, device), _tokenizer(file, tokens))


def _encoder(folder: Path, device: str | torch.device) -> Any:
    try:
        from transformers import T5EncoderModel
    except ImportError as error:
        raise MissingExtra("transformers", "text") from error
    library: Any = T5EncoderModel
    try:
        with quiet():
            encoder, found = library.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FileFormatError(f"Cannot read {folder}: {error} {_ADVICE}") from error
    if missing := sorted(found["missing_keys"]):
        raise FileFormatError(
            f"{folder} is no T5 encoder: it has no {missing[0]!r} ({len(missing)} tensors are "
            f"missing). {_ADVICE}"
        )
    return encoder.to(device, torch.float32).eval().requires_grad_(False)


def _tokenizer(file: Path, tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # that is all the package says
        raise FileFormatError(f"Cannot read {file}: {error}. {_ADVICE}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    return tokenizer
