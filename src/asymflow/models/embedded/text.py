"""The text tower: word pieces, static word vectors, two trained layers.

The vectors of the 30,522 word pieces are fixed. They were distilled once from MiniLM
(`asymflow.training.vectors`), so that words of similar meaning have similar vectors, and a
prompt may use words that are not in the captions. The two layers on top are trained with the
picture model. No language model runs at generation time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

MAX_TOKENS = 32
"""Maximal number of word pieces of a prompt, the two markers at its ends included."""


def load_tokenizer() -> Tokenizer:
    """The uncased WordPiece tokenizer shipped with the package."""
    text = (
        resources.files("asymflow.models.embedded.weights")
        .joinpath("tokenizer.json")
        .read_text("utf-8")
    )
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, prompts: Sequence[str], length: int | None = MAX_TOKENS
) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [b, length]; `length=None` pads to the longest prompt only.

    Generation always pads to the same length, so that no prompt depends on its neighbours.
    """
    encodings = tokenizer.encode_batch(list(prompts))
    if length is None:
        length = max(len(e.ids) for e in encodings)
    ids = torch.zeros(len(encodings), length, dtype=torch.long)
    mask = torch.zeros(len(encodings), length, dtype=torch.bool)
    for row, encoding in enumerate(encodings):
        n = len(encoding.ids)
        ids[row, :n] = torch.tensor(encoding.ids)
        mask[row, :n] = True
    return ids, mask


class TextLayer(nn.Module):
    """A small pre-norm transformer layer over prompt tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, width = x.shape
        qkv = self.qkv(F.layer_norm(x, (width,))).reshape(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.project(attended.transpose(1, 2).reshape(b, n, width))
        return x + self.contract(F.gelu(self.expand(F.layer_norm(x, (width,)))))


class TextTower(nn.Module):
    """Prompt tokens and a style to features [b, l + 1, width] and one summary vector [b, width].

    The style is one more token at the end; style 0 means "whatever the prompt says".
    """

    table: Tensor
    table_scale: Tensor

    def __init__(self, vocabulary: int, styles: int, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(vocabulary, width, dtype=torch.int8))
        self.register_buffer("table_scale", torch.ones(vocabulary, 1))
        self.position = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.1)
        self.style = nn.Embedding(styles + 1, width)
        self.project = nn.Linear(width, width)
        self.layers = nn.ModuleList(TextLayer(width, heads=4) for _ in range(depth))

    def set_vectors(self, vectors: Tensor) -> None:
        """Store static vectors [vocabulary, width] as int8 with one scale per row."""
        scale = vectors.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
        self.table.copy_((vectors / scale).round().to(torch.int8))
        self.table_scale.copy_(scale)

    def vectors(self) -> Tensor:
        """The static vectors [vocabulary, width], as exact as they are stored."""
        return self.table * self.table_scale.float()

    def forward(self, ids: Tensor, mask: Tensor, style: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ids [b, l], mask [b, l], style [b] -> features, mask [b, l + 1], summary."""
        dtype = self.position.dtype
        words = self.table[ids].to(dtype) * self.table_scale[ids].to(dtype)
        x = self.project(words) + self.position[: ids.shape[1]]
        x = torch.cat((x, self.style(style)[:, None]), dim=1)
        mask = torch.cat((mask, mask.new_ones((len(mask), 1))), dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        x = F.layer_norm(x, (x.shape[-1],))
        weight = mask[..., None].to(dtype)
        return x, mask, (x * weight).sum(1) / weight.sum(1)
