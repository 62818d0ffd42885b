"""What a plan needs of a model, which weights it was measured on, and what a model is.

Plain data, without torch: `planning.binding` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asymflow.core.checks import instance, number, whole
from asymflow.core.fingerprint import Fingerprint

SHORTEST_HASH = 8
"""Fewer digits of a hash identify no weights."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a plan needs of a model; None where it does not matter.

    Attributes:
        parameterisation: what the network predicts: "x_0", "eps", "v", or "flow", which is the
            velocity of flow matching.
        noise_scale: standard deviation of the noise at t = 1, where pictures fill [-1, 1].
        shift_rule: how times depend on the size of the picture, such as "side / 64".
        size: (height, width) of the pictures that the plan is for.
        guidance: how the model is guided: "cfg", or "none".
        alpha: whether pictures have transparency.
        extra: entries of the file that this version does not know.
    """

    parameterisation: str | None = None
    noise_scale: float | None = None
    shift_rule: str | None = None
    size: tuple[int, int] | None = None
    guidance: str | None = None
    alpha: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("parameterisation", "shift_rule", "guidance"):
            if (value := getattr(self, name)) is not None:
                instance(name, value, str, "Give a text, or None where it does not matter.")
        if self.noise_scale is not None:
            object.__setattr__(self, "noise_scale", number("noise_scale", self.noise_scale))
        if self.size is not None:
            height, width = (whole("A side of size", side, 1) for side in self.size)
            object.__setattr__(self, "size", (height, width))


@dataclass(frozen=True, slots=True)
class Binding:
    """The weights that a plan was measured on.

    Attributes:
        family: of the model, such as "embedded".
        weights: hash of the weights, or its first digits; None for a plan of the whole family.
        name: of the weights, for people.
        fingerprint: by which the weights are recognised in other precisions.
        settings: what else changes the pictures of the model, by name: how estimates are clipped,
            the noise schedule; None where the plan does not say.
        extra: entries of the file that this version does not know.
    """

    family: str
    weights: str | None = None
    name: str | None = None
    fingerprint: Fingerprint | None = None
    settings: Mapping[str, str] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    def __str__(self) -> str:
        short = self.family if self.weights is None else f"{self.family}:{self.weights[:12]}"
        return short if self.name is None else f"{short} ({self.name})"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a plan has to know of a model.

    Attributes:
        family: models that share a way of sampling, such as "embedded".
        weights: hash of the weights.
        parameterisation: what the network predicts: "x_0", "eps", "v", or "flow", which is the
            velocity of flow matching.
        guidance: how it is guided: "cfg", or "none".
        shift_rule: how times depend on the size of the picture; None if they do not.
        noise_scale: standard deviation of the noise at t = 1, where pictures fill [-1, 1].
        alpha: whether pictures have transparency.
        fingerprint: by which the weights are recognised in other precisions; None where the hash
            does not depend on the precision that they are loaded in.
        settings: what else changes pictures, by name.
    """

    family: str
    weights: str
    parameterisation: str
    guidance: str
    shift_rule: str | None = None
    noise_scale: float = 1.0
    alpha: bool = False
    fingerprint: Fingerprint | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def binding(self) -> Binding:
        """The binding of a plan that was measured on this model."""
        return Binding(
            self.family,
            self.weights,
            fingerprint=self.fingerprint,
            settings=self.settings or None,
        )

    @property
    def requirements(self) -> Requirements:
        """What plans of this model need of others; any size."""
        return Requirements(
            parameterisation=self.parameterisation,
            noise_scale=self.noise_scale,
            shift_rule=self.shift_rule,
            guidance=self.guidance,
            alpha=self.alpha,
        )

    def __str__(self) -> str:
        return f"{self.family}:{self.weights[:12]}"
