"""Recipes: the complete configuration of training runs.

Progress runs from 0 to 1 over the recipe's minutes or its steps; the learning rate and the mixture
of pictures are functions of it. A run by steps is bit-identical however often it is interrupted.
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
        until: progress in [0, 1] at which the phase ends.
        shares: sizes of batches and their weights.
        simple: factor on the weight of simple things, see `training.data.dataset.Dataset.sample`.
    """

    until: float
    shares: tuple[tuple[Size, float], ...]
    simple: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run.

    Attributes:
        minutes: duration, without interruptions; with `steps` only an estimate.
        steps: number of steps, or None to train for `minutes`.
        rank, detail, skip, references: see `asymflow.models.embedded.network.PictureConfig`.
        tokens: picture patches per batch; the number of pictures depends on their size.
        muon_rate, kernel_rate, adam_rate: peak learning rates of the block matrices, of the inner
            convolutions, and of all other parameters.
        decay: final share of the run in which the rates decay linearly to zero.
        ema: decay of the weight average per step, after warm-up.
        time_mean, time_std: t at 64 px is sigmoid(normal(mean, std)); other sizes are shifted to
            the same pooled signal-to-noise ratio. The distribution favours noise, because only
            above t = 0.97 is the layout invisible even in an 8 x 8 mean, so that it has to come
            from the prompt.
        time_uniform: share of times that are uniform in [0.02, 0.95], where rendering is learnt.
        edges: weight of edges in the loss, see `training.loop.loss`.
        drop_text, drop_style, drop_reference: probabilities of dropping the caption, the style and
            the references.
        drop_words: probability of dropping caption and style but not the references.
        drop_all: probability of dropping all conditioning (the unconditional pass of guidance).
        checkpoint_minutes: time between checkpoints.
        sample_minutes: time between points of the curve, each with a sheet of samples.
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
    edges: float = 0.0
    compile: bool = False
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 20.0
    seed: int = 0

    def phase(self, progress: float) -> Phase:
        """The phase at a progress in [0, 1]."""
        return next(phase for phase in self.phases if progress <= phase.until)

    def rate(self, step: int, progress: float) -> float:
        """Factor on the learning rates: warm-up, constant, linear decay to zero."""
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
    detail=DetailConfig(gates=True),
    skip=0.15,
    references=2,
    tokens=3072,
    decay=0.2,
    ema=0.999,
    time_uniform=0.7,
    drop_style=0.1,
    drop_reference=0.1,
    drop_words=0.05,
    flip=0.0,
    scene=0.08,
    disturb=0.3,
    recolour=0.15,
    edges=0.5,
    # Small pictures of everyday things first, at a quarter of the cost: a CPU without bfloat16
    # matrix units then produces recognisable samples within hours.
    phases=(
        Phase(0.025, _square((32, 0.85), (64, 0.15)), simple=6.0),
        Phase(0.12, _square((32, 0.45), (64, 0.55)), simple=4.0),
        Phase(0.35, _square((32, 0.15), (64, 0.79)) + _WIDE, simple=3.0),
        Phase(0.85, _square((32, 0.12), (64, 0.78), (128, 0.04)) + _WIDE, simple=2.0),
        Phase(1.00, _square((32, 0.12), (64, 0.65), (128, 0.17)) + _WIDE, simple=2.0),
    ),
)
"""Conditioned on references, with a convolutional detail head."""

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
        # Fine-tunes trained weights on one core, mostly on everyday things.
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
        # V2 in ten minutes on one GPU.
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
            detail=DetailConfig(half=16, quarter=16, gates=True),
            tokens=256,
            warmup_steps=2,
            checkpoint_minutes=0.05,
            sample_minutes=0.05,
            phases=(Phase(1.0, _square((32, 0.5), (64, 0.5))),),
        ),
    )
}


def finish(recipe: Recipe, step: int, steps: int) -> Recipe:
    """The last `steps` of a recipe, from `step` on: the rates fall to zero.

    A run at constant rates can be ended well at any step (arXiv 2405.18392). The weights are
    averaged over a fifth of these steps, since those before are of higher rates.
    """
    total = step + steps
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name}-finish",
        steps=total,
        decay=steps / total,
        ema=max(0.0, 1 - 5 / steps),
    )


def recipe(name: str) -> Recipe:
    """Look up a recipe.

    Raises:
        InputError: the name is unknown.
    """
    if name not in RECIPES:
        raise InputError(f"Unknown recipe {name!r}. Choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
