"""Recipes: everything that decides a training run, as data.

Progress runs from 0 to 1 over the recipe's minutes, on whatever machine, or over its steps; the
learning rate and the mixture of pictures follow it. A run that counts steps comes out the same, bit
for bit, however often it was interrupted.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from asymflow.core.errors import InputError
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.transformer import TransformerConfig

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run.

    Attributes:
        until: where it ends, in [0, 1] of the run.
        shares: every batch has one of these sizes, drawn by weight.
        simple: factor on the draws of simple things, see `training.data.dataset.Dataset.sample`.
    """

    until: float
    shares: tuple[tuple[Size, float], ...]
    simple: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run.

    Attributes:
        minutes: of training, pauses not counted. Where there are `steps`, only a guess.
        steps: that the run takes, or None where it takes its minutes.
        rank, detail, skip, references: see `asymflow.models.embedded.network.PictureConfig`.
        tokens: picture patches in a batch (each size gets as many pictures as fill it).
        muon_rate, kernel_rate, adam_rate: peak learning rates of the block matrices, of the
            convolutions between the first and the last, and of everything else.
        decay: share of the run at the end over which the rates fall linearly to zero.
        ema: decay of the weight average per step, once warmed up.
        time_mean, time_std: t at 64 px is sigmoid(normal(mean, std)); other sizes are shifted to
            the same pooled signal-to-noise ratio. Far towards noise: only above t = 0.97 is the
            layout hidden even from an 8 x 8 mean, and has to come from the prompt.
        time_uniform: share of times that are uniform in [0.02, 0.95] instead: rendering is learnt
            there.
        drop_text, drop_style, drop_reference: chances that a picture is seen without its caption,
            without its style, without its references.
        drop_words: without caption and style, so that only the references are left.
        drop_all: without anything (the unconditional pass of guidance).
        checkpoint_minutes: between two checkpoints, which are all that a killed run loses.
        sample_minutes: between two points of the curve, each with a sheet of samples.
        flip, background, scene, disturb, recolour: see `training.data.dataset.Dataset.sample`.
    """

    name: str
    minutes: float
    phases: tuple[Phase, ...]
    steps: int | None = None
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    rank: int = 16
    detail: DetailConfig | None = None
    skip: float | None = None
    references: int = 0
    tokens: int = 4608
    muon_rate: float = 1.5e-3
    kernel_rate: float = 5e-3
    adam_rate: float = 6e-4
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay: float = 0.35
    ema: float = 0.998
    time_mean: float = 2.0
    time_std: float = 1.6
    time_uniform: float = 0.1
    drop_text: float = 0.05
    drop_style: float = 0.2
    drop_reference: float = 0.0
    drop_words: float = 0.0
    drop_all: float = 0.1
    flip: float = 0.5
    background: float = 0.1
    scene: float = 0.1
    disturb: float = 0.0
    recolour: float = 0.0
    compile: bool = False
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 20.0
    seed: int = 0

    def phase(self, progress: float) -> Phase:
        """The part of the run at a progress in [0, 1]."""
        return next(phase for phase in self.phases if progress <= phase.until)

    def rate(self, step: int, progress: float) -> float:
        """Factor on the learning rates: a short warm-up, a plateau, a linear fall to zero."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, 1 - progress) / self.decay)


def _square(*shares: tuple[int, float]) -> tuple[tuple[Size, float], ...]:
    return tuple(((side, side), weight) for side, weight in shares)


_WIDE: tuple[tuple[Size, float], ...] = (((64, 128), 0.03), ((128, 64), 0.03))

V2 = Recipe(
    name="v2",
    minutes=1800,
    steps=16000,
    transformer=TransformerConfig(depth=6),
    rank=0,
    detail=DetailConfig(),
    skip=0.15,
    references=2,
    tokens=3072,
    decay=0.2,
    ema=0.999,
    time_uniform=0.5,
    drop_style=0.1,
    drop_reference=0.1,
    drop_words=0.05,
    flip=0.0,
    scene=0.08,
    disturb=0.3,
    recolour=0.15,
    # Small pictures of everyday things first: they cost a quarter, and a core without matrix units
    # for bfloat16 gets to something that can be looked at within hours.
    phases=(
        Phase(0.025, _square((32, 0.85), (64, 0.15)), simple=6.0),
        Phase(0.12, _square((32, 0.45), (64, 0.55)), simple=4.0),
        Phase(0.35, _square((32, 0.30), (64, 0.64)) + _WIDE, simple=3.0),
        Phase(0.85, _square((32, 0.20), (64, 0.70), (128, 0.04)) + _WIDE, simple=2.0),
        Phase(1.00, _square((32, 0.12), (64, 0.65), (128, 0.17)) + _WIDE, simple=2.0),
    ),
)
"""Draws from a reference, and renders with convolutions."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="cpu",
            minutes=240,
            phases=(
                Phase(0.20, _square((32, 0.8), (64, 0.2))),
                Phase(0.70, _square((32, 0.22), (64, 0.70), (128, 0.05)) + _WIDE),
                Phase(1.00, _square((32, 0.12), (64, 0.65), (128, 0.17)) + _WIDE),
            ),
        ),
        # Goes on from trained weights on one core, mostly with what people ask for most.
        Recipe(
            name="laptop",
            minutes=72,
            tokens=3072,
            muon_rate=8e-4,
            adam_rate=3e-4,
            decay=0.7,
            ema=0.99,
            phases=(Phase(1.00, _square((32, 0.45), (64, 0.47), (128, 0.02)) + _WIDE, simple=4.0),),
        ),
        V2,
        # The same in ten minutes of one GPU.
        dataclasses.replace(
            V2,
            name="gpu",
            minutes=10,
            steps=None,
            tokens=36864,
            muon_rate=2e-3,
            adam_rate=1e-3,
            ema=0.999,
            compile=True,
            checkpoint_minutes=3.0,
            phases=(
                Phase(0.15, _square((32, 0.7), (64, 0.3)), simple=4.0),
                Phase(0.60, _square((32, 0.2), (64, 0.74)) + _WIDE, simple=3.0),
                Phase(1.00, _square((32, 0.1), (64, 0.64), (128, 0.2)) + _WIDE, simple=2.0),
            ),
        ),
        dataclasses.replace(
            V2,
            name="smoke",
            minutes=0.1,
            steps=None,
            transformer=TransformerConfig(width=64, depth=2, head_dim=32, hidden=128),
            detail=DetailConfig(half=16, quarter=16),
            tokens=256,
            warmup_steps=2,
            checkpoint_minutes=0.05,
            sample_minutes=0.05,
            phases=(Phase(1.0, _square((32, 0.5), (64, 0.5))),),
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of that name."""
    if name not in RECIPES:
        raise InputError(f"Unknown recipe {name!r}. Choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
