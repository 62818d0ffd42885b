"""How the models of the suite are loaded and asked."""

from __future__ import annotations

from pathlib import Path

import torch

import asymflow
from asymflow.core import schedules
from asymflow.core.adapter import CardedAdapter, Described, Wrapped
from asymflow.core.card import Carded
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.models.about import WithCard
from asymflow.models.diffusers.networks import DiffusersAdapter


class Together(Wrapped):
    """The same model, many pictures per call: quicker, where a last bit does not matter."""

    @property
    def batch(self) -> int | None:
        return None


def loaded(ref: Path | str) -> CardedAdapter:
    """A model of the suite, as `asymflow.load` names it.

    Raises:
        InputError: it has no card.
    """
    model = asymflow.load(ref)
    if not (isinstance(model, Carded) and isinstance(model, Described)):
        raise InputError(f"{ref} has no card. Train it with `fashion train`.")
    inner = model.inner if isinstance(model, WithCard) else model
    if isinstance(inner, DiffusersAdapter):  # convolutions, which this makes quicker
        inner.model.to(memory_format=torch.channels_last)
    return model


def asked(model: CardedAdapter, scale: float, first: int, count: int) -> list[Request]:
    """Requests with seeds from `first` on, for all classes or prompts of the card in turn."""
    size, inputs = model.card.sizes.native, model.card.calibration
    seeds = range(first, first + count)
    return [Request(inputs[seed % len(inputs)], size, seed, scale) for seed in seeds]


def dense(model: CardedAdapter) -> tuple[float, ...]:
    """The times of the model's own sampler, dense."""
    own = model.own_plan(model.card.sizes.native).times
    return own if own[0] < 1 else schedules.uniform(400)  # a flow has any number of them
