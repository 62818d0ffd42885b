"""Recipes: everything that decides a training run, as data.

Progress runs from 0 to 1 over the recipe's minutes, on whatever machine; the learning rate and the
mixture of sizes follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from asymflow.errors import InputError
from asymflow.nets.transformer import TransformerConfig

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phase:
    """Until `until` of the run, every batch has one of `shares`' sizes, drawn by weight."""

    until: float
    shares: tuple[tuple[Size, float], ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run.

    Attributes:
        minutes: of training, pauses not counted.
        rank: of the noise subspace, see `asymflow.nets.picture.PictureConfig`.
        tokens: picture patches in a batch (each size gets as many pictures as fill it).
        muon_rate, adam_rate: peak learning rates of the block matrices and of everything else.
        decay: share of the run at the end over which the rates fall linearly to zero.
        ema: decay of the weight average per step, once warmed up.
        time_mean, time_std: t at 64 px is sigmoid(normal(mean, std)); other sizes are shifted to
            the same pooled signal-to-noise ratio. Far towards noise: only above t = 0.97 is the
            layout hidden even from an 8 x 8 mean, and has to come from the prompt.
        simple: factor on the draws of simple things, see `asymflow.data.dataset.Dataset`.
        drop_text, drop_style, drop_all: chances that a picture is seen without its caption,
            without its style, without both (the unconditional pass of guidance).
    """

    name: str
    minutes: float
    phases: tuple[Phase, ...]
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    rank: int = 16
    tokens: int = 4608
    muon_rate: float = 1.5e-3
    adam_rate: float = 6e-4
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay: float = 0.35
    ema: float = 0.998
    time_mean: float = 2.0
    time_std: float = 1.6
    simple: float = 1.0
    drop_text: float = 0.05
    drop_style: float = 0.2
    drop_all: float = 0.1
    background: float = 0.1
    scene: float = 0.1
    compile: bool = False
    checkpoint_minutes: float = 10.0
    seed: int = 0

    def sizes(self, progress: float) -> tuple[tuple[Size, float], ...]:
        """The mixture of sizes at a progress in [0, 1]."""
        return next(phase.shares for phase in self.phases if progress <= phase.until)

    def rate(self, step: int, progress: float) -> float:
        """Factor on the learning rates: a short warm-up, a plateau, a linear fall to zero."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, 1 - progress) / self.decay)


def _square(*shares: tuple[int, float]) -> tuple[tuple[Size, float], ...]:
    return tuple(((side, side), weight) for side, weight in shares)


_WIDE: tuple[tuple[Size, float], ...] = (((64, 128), 0.03), ((128, 64), 0.03))

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
            simple=4.0,
            checkpoint_minutes=35.0,  # its sheet of samples takes minutes too
            phases=(Phase(1.00, _square((32, 0.45), (64, 0.47), (128, 0.02)) + _WIDE),),
        ),
        Recipe(
            name="gpu",
            minutes=23,
            transformer=TransformerConfig(width=512, depth=8, hidden=1408),
            tokens=65536,
            muon_rate=2e-3,
            adam_rate=1e-3,
            ema=0.9995,
            compile=True,
            phases=(
                Phase(0.25, _square((32, 0.6), (64, 0.4))),
                Phase(0.60, _square((32, 0.15), (64, 0.55), (128, 0.24)) + _WIDE),
                Phase(1.00, _square((32, 0.10), (64, 0.25), (128, 0.59)) + _WIDE),
            ),
        ),
        Recipe(
            name="smoke",
            minutes=0.1,
            transformer=TransformerConfig(width=64, depth=2, head_dim=32, hidden=128),
            tokens=256,
            warmup_steps=2,
            checkpoint_minutes=0.05,
            phases=(Phase(1.0, _square((32, 0.5), (64, 0.5))),),
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of that name."""
    if name not in RECIPES:
        raise InputError(f"Unknown recipe {name!r}. Choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
