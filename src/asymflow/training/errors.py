"""Errors of single estimates on real pictures, for the learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from asymflow.core.flow import interpolate
from asymflow.models.embedded.network import PictureModel
from asymflow.models.embedded.text import load_tokenizer, tokenize
from asymflow.models.embedded.words import nouns
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry
from asymflow.training.loop import Batch, context_of, states

TIMES = (1.0, 0.9, 0.8, 0.6, 0.4, 0.2)
_ROWS = 24


@torch.no_grad()
def squared_errors(
    model: PictureModel,
    dataset: Dataset,
    entries: Sequence[Entry],
    size: int,
    *,
    count: int | None = None,
    times: Sequence[float] = TIMES,
) -> Mapping[float, float]:
    """Mean of |x_0_hat - x_0|^2 at each time, with the same noise for every model.

    Prompts are plain names, styles are given, and references come from `Dataset.references`.

    Args:
        entries: the pictures to estimate.
        size: side in pixels: 32, 64 or 128.
        count: maximum number of references; by default the maximum of the model.
        times: t in (0, 1].

    Returns:
        By time, the mean over pictures, channels and pixels of states in [-1, 1].
    """
    slots = model.config.references
    used = slots if count is None else count
    tokenizer = load_tokenizer()
    device = model.basis.device
    noise = torch.Generator().manual_seed(3)
    total = dict.fromkeys(times, 0.0)
    for begin in range(0, len(entries), _ROWS):
        part = entries[begin : begin + _ROWS]
        x_0 = states(dataset.images([entry.index for entry in part], size))
        eps = torch.randn(x_0.shape, generator=noise)
        ids, mask = tokenize(tokenizer, [nouns(entry.name)[0].single for entry in part], None)
        style = torch.tensor([dataset.styles.index(entry.style) + 1 for entry in part])
        drawings, present = dataset.references(part, size, slots)
        present[:, used:] = False
        batch = Batch(
            x_0=x_0,
            t=torch.zeros(len(part)),
            ids=ids,
            mask=mask,
            style=style,
            references=states(drawings),
            present=torch.from_numpy(present),
        ).to(device)
        context = context_of(model, batch)
        for t in times:
            at = torch.full((len(part),), t, device=device)
            x_t = interpolate(batch.x_0, eps.to(device), at)
            made = model(x_t.to(context["summary"].dtype), at, context).float()
            total[t] += float((made - batch.x_0).square().mean((1, 2, 3)).sum())
    return {t: value / len(entries) for t, value in total.items()}
