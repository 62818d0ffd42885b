"""Small models on disk: two that learnt Fashion-MNIST, and two of prompts with random weights.

`UNET` and `JIT` lie in the repository; `python -m benchmarks fashion train` made them. `prx` and
`minit2i` write models that ask for a prompt, with a text encoder and a tokenizer that
`from_pretrained` loads. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

from asymflow.models.minit2i.checkpoint import published_name
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel

SMALL = Path(__file__).parents[1] / "benchmarks/models"
UNET = SMALL / "fashion-unet"
"""A folder of diffusers' `DDPMPipeline`: a `UNet2DModel` of classes."""
JIT = SMALL / "fashion-jit.safetensors"
"""A state dict with the names of the published checkpoints."""

TEXT_WIDTH = 32
"""Of the features of both text encoders."""
TEXT_TOKENS = 16
"""That prompts are padded or truncated to."""
SIDE = 32

_CORPUS = (
    "a red fox in the snow, a blue disc on a yellow square, three green apples and a glass of "
    "water on a wooden table, an old fishing boat on a calm lake at sunrise, in the style of an "
    "oil painting, a photo of a cat, portrait of a woman with a hat, soft light, highly detailed, "
    "blurry, low quality, ugly"
).split(", ")


def prx(folder: Path) -> Path:
    """A `PRXPixelPipeline` of 32 px in a folder, as `save_pretrained` writes it."""
    diffusers: Any = importlib.import_module("diffusers")
    transformers: Any = importlib.import_module("transformers")
    tokenizer = _bytes_tokenizer()
    torch.manual_seed(0)
    encoder = transformers.Qwen3VLTextModel(
        transformers.Qwen3VLTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
            rope_scaling={"rope_type": "default", "mrope_section": [4, 2, 2]},
        )
    )
    network = diffusers.PRXTransformer2DModel(
        in_channels=3,
        patch_size=4,
        context_in_dim=TEXT_WIDTH,
        hidden_size=32,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
        bottleneck_size=16,
        resolution_embeds=True,
    )
    pipe = diffusers.PRXPixelPipeline(
        _shaken(network),
        diffusers.FlowMatchEulerDiscreteScheduler(),
        encoder,
        tokenizer,
        default_sample_size=SIDE,
        prompt_max_tokens=TEXT_TOKENS,
    )
    pipe.save_pretrained(folder)
    return folder


def minit2i_state() -> dict[str, Tensor]:
    """Random weights of a MiniT2I of 32 px, under their published names."""
    torch.manual_seed(0)
    shape = MiniT2IConfig(
        size=SIDE, patch=4, width=48, depth=2, heads=2, head_dim=24, hidden=96, bottleneck=12,
        text_width=TEXT_WIDTH, text_depth=2, text_tokens=TEXT_TOKENS,
    )  # fmt: skip
    state = _shaken(MiniT2IModel(shape)).state_dict()
    return {published_name(name): value.contiguous() for name, value in state.items()}


def minit2i(folder: Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """A MiniT2I in a folder as published, with its text encoder, a T5.

    Args:
        folder: to write.
        state: of the network, under its published names; of 32 px, for features of `TEXT_WIDTH`
            and `TEXT_TOKENS` tokens. By default `minit2i_state`.
    """
    state = minit2i_state() if state is None else state
    transformers: Any = importlib.import_module("transformers")
    network = folder / "transformer"
    network.mkdir(parents=True)
    save_file(dict(state), network / "diffusion_pytorch_model.safetensors")
    config = {"image_size": SIDE, "prompt_length": TEXT_TOKENS, "prediction": "x"}
    (network / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = _pieces_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    encoder = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    encoder.save_pretrained(folder / "text_encoder")
    return folder


def _bytes_tokenizer() -> Any:
    """Pairs of bytes, as in Qwen: any text has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return _fast(tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>")


def _pieces_tokenizer() -> Any:
    """Pieces of words, closed by </s>, as in T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return _fast(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _fast(tokenizer: Tokenizer, **special: str) -> Any:
    transformers: Any = importlib.import_module("transformers")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=TEXT_TOKENS, **special
    )


def _shaken(network: Any) -> Any:
    """Away from the zeros that networks begin with, which let no condition through."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()
